import * as assert from 'node:assert/strict'
import * as fs from 'node:fs/promises'
import { createBackup, restoreInit } from '../backups'
import { copies, setInterfaces, webPort } from '../interfaces'
import { sdk } from '../sdk'
import { entries, listEntries, putEntry, settings } from '../settings'
import { versionGraph } from '../versions'
import type { Tests } from './run'

const url = `http://127.0.0.1:${webPort}`

export const tests: Tests = {
  'the page and an entry are served': async () => {
    assert.match(await (await fetch(url)).text(), /<h1>Vault/)
    await putEntry('self-test', 'grüße')
    assert.equal(await (await fetch(`${url}/cgi-bin/entry?self-test`)).text(), 'grüße')
    assert.equal((await fetch(`${url}/cgi-bin/entry?nothing`)).status, 404)
    assert.equal((await fetch(`${url}/cgi-bin/entry?../settings.json`)).status, 400)
  },
  'an entry is written over HTTP': async () => {
    await fetch(`${url}/cgi-bin/entry?self-test`, { method: 'POST', body: 'by HTTP' })
    assert.ok((await listEntries()).some(e => e.name === 'self-test' && e.text === 'by HTTP'))
    await fs.rm(`${entries}/self-test`)
  },
  'names and lengths are checked': async () => {
    await assert.rejects(putEntry('../x', 'y'), /no name/)
    await assert.rejects(putEntry('long', 'y'.repeat(200_000)), /more than/)
  },
  'the action puts an entry and shows it': async effects => {
    await effects.action.run({ actionId: 'put', input: { name: 'self-test', text: 'by action' } })
    const shown = await effects.action.run({ actionId: 'show' })
    assert.ok(JSON.stringify(shown).includes('by action'))
    await fs.rm(`${entries}/self-test`)
    await assert.rejects(effects.action.run({ actionId: 'put', input: { name: 'Not a name', text: 'x' } }))
  },
  'the settings fill their form': async effects => {
    const form = await effects.action.getInput({ actionId: 'configure' })
    assert.deepEqual(form?.value, await settings.read().once())
  },
  'ports are bound and interfaces shown': async effects => {
    const host = (await sdk.host.getOwn(effects, 'web').once())!
    assert.ok(host.bindings[webPort]?.enabled && host.bindingRanges[copies.internalStartPort]?.enabled)
    assert.equal(host.bindingRanges[copies.internalStartPort]?.interface?.id, 'copies')
    assert.deepEqual(Object.keys(await effects.listServiceInterfaces({})).sort(), ['api', 'page'])
    assert.equal((await effects.getServiceInterface({ serviceInterfaceId: 'api' }))?.addressInfo.suffix, '/cgi-bin/entry')
    const forward = await sdk.getServicePortForward(effects, { hostId: 'web', internalPort: webPort })
    assert.ok(forward.assignedPort)
    await setInterfaces(effects) // as often as one likes
    assert.deepEqual(await sdk.getServicePortForward(effects, { hostId: 'web', internalPort: webPort }), forward)
  },
  'data moves to the version before and back': async effects => {
    const { ExtendedVersion } = await import('@start9labs/start-sdk')
    const before = await listEntries()
    await versionGraph.uninit(effects, ExtendedVersion.parse('1.0.0:0'))
    assert.equal((await sdk.getDataVersion(effects))?.toString(), '1.0.0:0')
    assert.deepEqual(await listEntries(), [])
    await versionGraph.init(effects, 'update')
    assert.equal((await sdk.getDataVersion(effects))?.toString(), '1.1.0:0')
    assert.deepEqual(await listEntries(), before)
  },
  'a backup holds the entries and gives them back': async effects => {
    const place = '/media/startos/backup'
    await fs.mkdir(place, { recursive: true }) // where the system mounts the target of a backup
    await putEntry('kept', 'before')
    await createBackup({ effects })
    await putEntry('kept', 'after')
    await restoreInit.init(effects, 'restore')
    assert.equal(await fs.readFile(`${entries}/kept`, 'utf8'), 'before')
    await fs.rm(`${entries}/kept`)
    await fs.rm(place, { recursive: true, force: true }).catch(() => {})
  },
  'an owner may be asked and a task withdrawn': async effects => {
    await sdk.action.createOwnTask(effects, { id: 'configure', _INPUT: {} } as const, 'optional', { replayId: 'self-test' })
    await sdk.action.clearTask(effects, 'self-test')
  },
  'the vault is healthy': async effects => {
    const status = await sdk.getStatus(effects).once()
    assert.equal(status?.desired.main, 'running')
    for (const id of ['web', 'store']) assert.equal(status?.health[id]?.result, 'success', id)
  },
}
