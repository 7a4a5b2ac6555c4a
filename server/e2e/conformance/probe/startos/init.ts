import * as fs from 'node:fs/promises'
import { FileHelper, IMPOSSIBLE, VersionGraph, VersionInfo, z, type T } from '@start9labs/start-sdk'
import { actions } from './actions'
import { sdk } from './sdk'

/** What happened in this package's life, one line each. */
export const journal = sdk.volumes.main.subpath('journal.txt')
const note = (line: string) => fs.appendFile(journal, line + '\n')

const first = VersionInfo.of({ version: '0.8.0:0', releaseNotes: 'First.', migrations: { up: () => note('up to 0.8.0:0'), down: IMPOSSIBLE } })
const second = VersionInfo.of({ version: '0.9.0:0', releaseNotes: 'Before.', migrations: { up: () => note('up to 0.9.0:0'), down: () => note('down from 0.9.0:0') } })
const current = VersionInfo.of({ version: '1.0.0:0', releaseNotes: 'Current.', migrations: { up: () => note('up to 1.0.0:0'), down: () => note('down from 1.0.0:0') } })

export const versions = VersionGraph.of({ current, other: [second, first] })

export const { createBackup, restoreInit } = sdk.setupBackups(async () =>
  sdk.Backups.ofVolumes('data')
    .setPreBackup(() => note('before the backup'))
    .setPostRestore(() => note('after the restore')),
)

/** What the page is called; who changes it changes the interface. */
export const title = FileHelper.json({ base: sdk.volumes.main, subpath: 'title.json' }, z.object({ title: z.string() }))

export const setInterfaces = sdk.setupInterfaces(async ({ effects }) => {
  const name = (await title.read(t => t.title).const(effects)) ?? 'Page'
  const web = sdk.MultiHost.of(effects, 'web')
  const origin = await web.bindPort(8080, { protocol: 'http', preferredExternalPort: 18080 })
  const ssh = await sdk.MultiHost.of(effects, 'shell').bindPort(2222, { protocol: 'ssh', preferredExternalPort: 12222 })
  const range = await web.bindPortRange({ internalStartPort: 40000, externalStartPort: 41000, numberOfPorts: 3 })
  await range.export(sdk.createRangeInterface(effects, { id: 'media', name: 'Media', description: 'x', scheme: 'tcp' }))
  const face = { description: 'x', masked: false, schemeOverride: null, username: null, path: '', query: {} }
  return [
    await origin.export([
      sdk.createInterface(effects, { ...face, name, id: 'page', type: 'ui' }),
      sdk.createInterface(effects, { ...face, name: 'API', id: 'api', type: 'api', masked: true, username: 'me', path: '/v1', query: { q: 'ü' }, schemeOverride: { ssl: 'https', noSsl: 'http' } }),
    ]),
    await ssh.export([sdk.createInterface(effects, { ...face, name: 'Shell', id: 'shell', type: 'p2p' })]),
  ]
})

export const setDependencies = sdk.setupDependencies(async () => ({
  'conformance-peer': { kind: 'running', versionRange: '>=2.0.0', healthChecks: ['page'] },
}))

export const counter = FileHelper.json({ base: sdk.volumes.main, subpath: 'counter.json' }, z.object({ n: z.number().catch(0) }))

/** Puts back what the rows about actions, interfaces and dependencies took away. */
export async function restore(effects: T.Effects) {
  await setInterfaces(effects)
  await setDependencies(effects)
  await actions.init(effects)
}

export const init = sdk.setupInit(
  restoreInit,
  versions,
  sdk.setupOnInit(async (effects, kind, progress) => {
    await note(`init ${kind}`)
    const phase = progress.addPhase('Conformance', 10)
    phase.start()
    if (kind === 'install') {
      await counter.write(effects, { n: 0 })
      await sdk.volumes.data.writeFile('kept.txt', 'kept')
    }
    phase.complete()
  }),
  setInterfaces,
  setDependencies,
  actions,
)

export const uninit = sdk.setupUninit(
  sdk.setupOnUninit(async (_, target) => {
    await note(`uninit ${target}`)
  }),
  versions,
)
