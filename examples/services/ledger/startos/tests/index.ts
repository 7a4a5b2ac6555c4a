import * as assert from 'node:assert/strict'
import * as fs from 'node:fs/promises'
import * as https from 'node:https'
import type { T } from '@start9labs/start-sdk'
import { createBackup } from '../backups'
import { tlsPort, webPort } from '../interfaces'
import { sdk } from '../sdk'
import { accounts, readEntry, record, vault, vaultAddress, writeEntry } from '../vault'
import { news } from '../watch'
import type { Tests } from './run'

const configure = { id: 'configure', _INPUT: {} as { title: string; limit: number } } as const
const tasks = async (effects: T.Effects) => (await effects.checkDependencies({ packageIds: [vault] }))[0]?.tasks ?? {}

async function eventually<V>(fn: () => V | Promise<V>): Promise<V> {
  for (const end = Date.now() + 20_000; ; ) {
    try {
      return await fn()
    } catch (e) {
      if (Date.now() > end) throw e
    }
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

export const tests: Tests = {
  'the vault is there, new enough and healthy': async effects => {
    assert.deepEqual(await sdk.getDependencies(effects), [{ kind: 'running', id: vault, versionRange: '>=1.1.0:0', healthChecks: ['web'] }])
    const check = await sdk.checkDependencies(effects, ['vault'])
    check.throwIfNotSatisfied('vault')
    assert.ok((await sdk.getInstalledPackages(effects)).includes(vault))
    assert.equal((await sdk.getServiceManifest(effects, vault).once())?.id, vault)
  },
  'its interfaces and ports can be read': async effects => {
    assert.deepEqual(Object.keys(await effects.listServiceInterfaces({ packageId: vault })).sort(), ['api', 'page'])
    const page = await effects.getServiceInterface({ packageId: vault, serviceInterfaceId: 'page' })
    const forward = await sdk.getServicePortForward(effects, { packageId: vault, hostId: page!.addressInfo.hostId, internalPort: page!.addressInfo.internalPort })
    assert.equal(await vaultAddress(effects).once(), `${await sdk.getOsIp(effects)}:${forward.assignedPort}`)
  },
  'amounts are recorded in the vault': async effects => {
    await writeEntry(effects, accounts, '')
    await record(effects, 'bread', 3)
    await record(effects, 'tea', 4.5)
    assert.equal(await readEntry(effects, accounts), 'bread\t3\ntea\t4.5\n')
  },
  'the report shows what the vault keeps': async () => {
    await eventually(async () => assert.match(await (await fetch(`http://127.0.0.1:${webPort}/`)).text(), /<dt>accounts<\/dt><dd><pre>bread\t3\n/))
  },
  'the balance is served with a certificate of the server': async effects => {
    const [, , ca] = await sdk.getSslCertificate(effects, ['ledger.startos']).once()
    const body = await new Promise<string>((resolve, reject) => {
      https.get({ host: '127.0.0.1', port: tlsPort, servername: 'ledger.startos', ca, path: '/' }, answer => answer.on('data', d => resolve(String(d)))).on('error', reject)
    })
    assert.equal(body, '7.5\n')
  },
  "the vault's volume is mounted, and cannot be written": async effects => {
    const mounts = sdk.Mounts.of().mountDependency({ dependencyId: vault, volumeId: 'main', subpath: 'entries', mountpoint: '/vault', readonly: true })
    await sdk.SubContainer.withTemp(effects, { imageId: 'web' }, mounts, 'self-test', async sub => {
      assert.equal(String((await sub.execFail(['cat', '/vault/accounts'])).stdout), 'bread\t3\ntea\t4.5\n')
      assert.notEqual((await sub.exec(['touch', '/vault/new'])).exitCode, 0)
    })
  },
  'only what the vault opens may be run': async effects => {
    await assert.rejects(effects.action.run({ packageId: vault, actionId: 'configure', input: { title: 'x', limit: 10 } }))
    assert.ok(await effects.action.run({ packageId: vault, actionId: 'show' }))
  },
  'a task asks for what only the owner may change': async effects => {
    const asked = (await tasks(effects))[`${vault}:configure`]
    assert.equal(asked?.task.reason, 'The accounts need longer entries.')
    await sdk.action.createTask(effects, vault, configure, 'optional', { replayId: 'self-test' })
    assert.ok((await tasks(effects))['self-test']?.active)
    await sdk.action.clearTask(effects, 'self-test')
    assert.equal((await tasks(effects))['self-test'], undefined)
  },
  'changes elsewhere are told': async effects => {
    await eventually(() => {
      for (const what of ['state of the vault', 'ports of the vault', 'address of the vault', 'version of the vault', 'gateway', 'mail server']) assert.ok(what in news, what)
    })
    assert.equal(news['version of the vault'], '"1.1.0:0"')
    assert.equal(news['address of the vault'], JSON.stringify(await sdk.getContainerIp(effects, { packageId: vault }).once()))
    // A watch ends with its context.
    const child = effects.child('self-test')
    sdk.getStatus(child, { packageId: vault }).onChange(() => ({ cancel: false }))
    await sdk.getStatus(child, { packageId: vault }).once()
    effects.child('self-test')
  },
  'an address is published and withdrawn': async effects => {
    const published = async () =>
      (await effects.getHostInfo({ packageId: vault, hostId: 'web' }))!.bindings[8080]!.addresses.available.some(a => a.metadata.kind === 'plugin' && a.hostname === 'vault.example.org')
    await effects.action.run({ actionId: 'publish', input: { hostname: 'vault.example.org' } })
    assert.ok(await published())
    await effects.action.run({ actionId: 'withdraw' })
    assert.ok(!(await published()))
  },
  'a backup leaves the report out': async effects => {
    await fs.mkdir('/media/startos/backup', { recursive: true })
    await createBackup({ effects })
    assert.deepEqual((await fs.readdir('/media/startos/backup/volumes/main')).filter(n => n === 'report'), [])
    assert.ok((await fs.readdir('/media/startos/backup/volumes/main')).includes('settings.yaml'))
  },
  'health can be said by hand': async effects => {
    await sdk.setHealth(effects, { id: 'self-test', name: 'Self-test', result: 'success', message: 'by hand' })
    assert.equal((await sdk.getStatus(effects).once())?.health['self-test']?.message, 'by hand')
    await effects.setMainStatus({ status: 'running' }) // of packages older than daemons; it says what is so anyway
  },
}
