import * as http from 'node:http'
import { buildManifest, FileHelper, setupManifest, StartSdk, VersionGraph, VersionInfo, z } from '@start9labs/start-sdk'
import { call } from '../../shared/call'

const source = setupManifest({
  id: 'conformance-peer',
  title: 'Conformance peer',
  license: 'MIT',
  packageRepo: 'https://github.com/selfstead/selfstead',
  upstreamRepo: 'https://github.com/selfstead/selfstead',
  marketingUrl: 'https://github.com/selfstead/selfstead',
  donationUrl: null,
  description: { short: 'What the probe depends on', long: 'Serves a page and calls the effects that the probe asks for.' },
  volumes: ['main', 'other'],
  images: {},
  dependencies: {},
})
const sdk = StartSdk.of().withManifest(source).build(true)
const versions = VersionGraph.of({
  current: VersionInfo.of({ version: '2.1.0:3', releaseNotes: 'One.', migrations: {} }).satisfies('1.9.0:0'),
  other: [],
})

const settings = FileHelper.json({ base: sdk.volumes.main, subpath: 'settings.json' }, z.object({ name: z.string(), size: z.number() }))

const { InputSpec, Value } = sdk
const meta = { name: 'Action', description: 'Of the conformance peer', warning: null, allowedStatuses: 'any', group: null, visibility: 'enabled' } as const
const single = (value: unknown) => ({
  version: '1' as const,
  title: 'Done',
  message: null,
  result: { type: 'single' as const, value: JSON.stringify(value) ?? 'undefined', copyable: false, qr: false, masked: false },
})

/** Any effect, on behalf of whoever asks. */
const callAction = sdk.Action.withInput(
  'call',
  { ...meta, access: 'public' },
  InputSpec.of({
    method: Value.text({ name: 'Method', required: true, default: null }),
    params: Value.text({ name: 'Parameters', required: true, default: '{}' }),
  }),
  async () => null,
  async ({ effects, input }) => single(await call(effects, input.method, JSON.parse(input.params))),
)

/** A form with a stored value, for tasks. */
const configure = sdk.Action.withInput(
  'configure',
  { ...meta, access: 'dependent' },
  InputSpec.of({
    name: Value.text({ name: 'Name', required: true, default: 'peer' }),
    size: Value.number({ name: 'Size', required: true, default: 1, integer: true, min: 1, max: 9 }),
  }),
  async () => await settings.read().once(),
  async ({ effects, input }) => {
    await settings.write(effects, input)
    return single(input)
  },
)

const plain = (id: string, more: object, run = async (): Promise<any> => single(id)) => sdk.Action.withoutInput(id, { ...meta, ...more }, run)

export const actions = sdk.Actions.of()
  .addAction(callAction)
  .addAction(configure)
  .addAction(plain('for-anyone', { access: 'public' }))
  .addAction(plain('for-dependents', { access: 'dependent' }))
  .addAction(plain('for-user', {}))
  .addAction(plain('hidden', { access: 'public', visibility: 'hidden' }))
  .addAction(plain('disabled', { access: 'public', visibility: { disabled: 'not today' } }))
  .addAction(plain('when-running', { access: 'public', allowedStatuses: 'only-running' }))
  .addAction(plain('when-stopped', { access: 'public', allowedStatuses: 'only-stopped' }))
  .addAction(plain('says-nothing', { access: 'public' }, async () => null))
  .addAction(
    plain('throws', { access: 'public' }, async () => {
      throw new Error('no luck')
    }),
  )
  .addAction(plain('old-result', { access: 'public' }, async () => ({ version: '0', message: 'old', value: 'v', copyable: true, qr: false })))

const interfaces = sdk.setupInterfaces(async ({ effects }) => {
  const origin = await sdk.MultiHost.of(effects, 'web').bindPort(8081, { protocol: 'http' })
  return [
    await origin.export([
      sdk.createInterface(effects, {
        name: 'Page',
        id: 'page',
        description: 'What the peer serves',
        type: 'ui',
        masked: false,
        schemeOverride: null,
        username: null,
        path: '/start',
        query: { a: 'b' },
      }),
    ]),
  ]
})

export const init = sdk.setupInit(
  versions,
  sdk.setupOnInit(async (effects, kind) => {
    if (kind === 'install') await settings.write(effects, { name: 'peer', size: 1 })
  }),
  interfaces,
  sdk.setupDependencies(async () => ({})),
  actions,
)
export const uninit = sdk.setupUninit(versions)

export const main = sdk.setupMain(async ({ effects }) => {
  const server = http.createServer((_, answer) => answer.end('the peer\n'))
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(8081, resolve))
  effects.onLeaveContext(() => {
    server.closeAllConnections()
    server.close()
  })
  return sdk.Daemons.of(effects).addHealthCheck('page', {
    ready: {
      display: 'Page',
      fn: () => sdk.healthCheck.checkPortListening(effects, 8081, { successMessage: 'served', errorMessage: 'not served' }),
    },
    requires: [],
  })
})

export const { createBackup } = sdk.setupBackups(['main'])
export const manifest = buildManifest(versions, source)
