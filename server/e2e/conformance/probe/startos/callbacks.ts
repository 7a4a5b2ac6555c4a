import * as assert from 'node:assert/strict'
import { request } from './socket'
import { sdk } from './sdk'
import { eventually, partly, test, type Case, type World } from './row'

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))

/**
 * A subscription fires once at a change of what was read, and not again before
 * it is renewed; one that was cleared does not fire.
 */
function fires(name: string, read: (w: World, callback?: () => void) => Promise<unknown>, change: (w: World, n: number) => Promise<unknown>): Case {
  return test(`callback: ${name}`, async w => {
    let fired = 0
    const before = await read(w, () => fired++)
    await change(w, 1)
    await eventually(() => assert.equal(fired, 1))
    await eventually(async () => assert.notDeepEqual(await read(w), before))
    await change(w, 2)
    await pause(30)
    assert.equal(fired, 1, 'it fires once')
    const child = w.effects.child('callbacks')
    await read({ ...w, effects: child }, () => (fired += 10))
    child.clearCallbacks && (await child.clearCallbacks({ except: [] }))
    await change(w, 3)
    await pause(30)
    assert.equal(fired, 1, 'a cleared one does not fire')
  })
}

const health = (id: string, n: number) => ({ id, name: 'N', result: 'success', message: `change ${n} at ${Date.now()}` }) as const
const host = (internalPort: number) => ({ id: 'watched', internalPort, preferredExternalPort: 20000 + internalPort, addSsl: null, secure: null })
const face = (id: string, name: string, hostId: string, internalPort: number) => ({
  id,
  name,
  description: 'd',
  masked: false,
  addressInfo: { username: null, hostId, internalPort, scheme: 'http', sslScheme: null, suffix: '' },
  type: 'api' as const,
})

export const callbacks: Case[] = [
  fires('own status', (w, callback) => w.effects.getStatus({ callback }), (w, n) => w.effects.setHealth(health('watched', n))),
  fires(
    "another's status",
    (w, callback) => w.effects.getStatus({ packageId: w.peer, callback }),
    (w, n) => w.byPeer('set-health', health('watched', n)),
  ),
  fires('own host', (w, callback) => w.effects.getHostInfo({ hostId: 'watched', callback }), (w, n) => w.effects.bind(host(9100 + n + 10 * (Date.now() % 80)))),
  fires(
    "another's host",
    (w, callback) => w.effects.getHostInfo({ packageId: w.peer, hostId: 'watched', callback }),
    (w, n) => w.byPeer('bind', host(9100 + n + 10 * (Date.now() % 80))),
  ),
  fires(
    'own interface',
    async (w, callback) => {
      await w.effects.bind(host(9100))
      return w.effects.getServiceInterface({ serviceInterfaceId: 'watched', callback })
    },
    (w, n) => w.effects.exportServiceInterface(face('watched', `n${n} ${Date.now()}`, 'watched', 9100)),
  ),
  fires(
    "another's interface",
    (w, callback) => w.effects.getServiceInterface({ packageId: w.peer, serviceInterfaceId: 'watched', callback }),
    (w, n) => w.byPeer('export-service-interface', face('watched', `n${n} ${Date.now()}`, 'web', 8081)),
  ),
  fires(
    'a list of interfaces',
    (w, callback) => w.effects.listServiceInterfaces({ packageId: w.peer, callback }),
    (w, n) => w.byPeer('export-service-interface', face('watched', `n${n} ${Date.now()}`, 'web', 8081)),
  ),
  test('callback: an interface that is not there yet', async w => {
    await w.byPeer('clear-service-interfaces', { except: ['page'] })
    let fired = 0
    assert.equal(await w.effects.getServiceInterface({ packageId: w.peer, serviceInterfaceId: 'later', callback: () => fired++ }), null)
    await w.byPeer('export-service-interface', face('later', 'Later', 'web', 8081))
    await eventually(() => assert.ok(fired))
    await w.byPeer('clear-service-interfaces', { except: ['page'] })
    await w.byPeer('clear-bindings', { except: [{ id: 'web', internalPort: 8081 }] })
  }),
  test('callback: a thousand at once, each once', async w => {
    const counts = new Array(1000).fill(0)
    await Promise.all(counts.map((_, i) => w.effects.getStatus({ packageId: w.peer, callback: () => counts[i]++ })))
    await w.byPeer('set-health', health('watched', Date.now()))
    await eventually(() => assert.ok(counts.every(n => n === 1), `${counts.filter(n => n === 0).length} have not fired`))
  }),
  test('callback: ids that were never given are ignored', async () => {
    assert.equal((await request('get-status', { callback: 123456789 })).error, undefined)
    assert.equal((await request('clear-callbacks', { only: [123456789] })).result, null)
  }),
  test('callback: the address of a container that is made anew, and the peer in it', async w => {
    let fired = 0
    const before = await w.effects.getContainerIp({ packageId: w.peer, callback: () => fired++ })
    assert.match(before, /^\d+\.\d+\.\d+\.\d+$/)
    // As the SDK watches: each callback is followed by another read.
    const values: unknown[] = []
    const child = w.effects.child('address')
    sdk.getContainerIp(child, { packageId: w.peer }).onChange(value => {
      values.push(value ?? null)
      return { cancel: false }
    })
    await w.byPeer('rebuild')
    await eventually(() => assert.ok(fired), 60_000)
    await eventually(() => assert.deepEqual(values, [before, null, before], 'it is gone, then it is there again'), 60_000)
    await eventually(() => w.byPeer('get-os-ip'), 60_000)
    w.effects.child('address')
    await eventually(async () => partly(await w.effects.getStatus({ packageId: w.peer }), { health: { page: { result: 'success' } }, desired: { main: 'running' } }), 60_000)
    assert.match(await w.effects.getContainerIp({ packageId: w.peer }), /^\d+\.\d+\.\d+\.\d+$/)
  }),
  test('control: a restart is asked for, happens, and ends', async w => {
    const started = async () => (await w.effects.getStatus({ packageId: w.peer }))?.started
    const before = await started()
    await w.byPeer('restart')
    await eventually(async () => {
      const now = await w.effects.getStatus({ packageId: w.peer })
      assert.ok(now?.started && now.started !== before, 'started again')
      partly(now, { desired: { main: 'running' }, health: { page: { result: 'success' } } })
    })
  }),
  test('control: what set-main-status stops is started again as desired', async w => {
    await w.byPeer('set-main-status', { status: 'stopped' })
    await eventually(async () => assert.ok((await w.effects.getStatus({ packageId: w.peer }))?.started))
  }),
  test('control: a shutdown stops; a restart of what is stopped does nothing', async w => {
    await w.byPeer('shutdown')
    await eventually(async () => partly(await w.effects.getStatus({ packageId: w.peer }), { started: null, desired: { main: 'stopped' }, health: {} }))
    await w.byPeer('restart')
    await pause(50)
    partly(await w.effects.getStatus({ packageId: w.peer }), { started: null, desired: { main: 'stopped' } })
    await assert.rejects(w.effects.action.run({ packageId: w.peer, actionId: 'when-running' }), /run/)
    assert.ok(await w.effects.action.run({ packageId: w.peer, actionId: 'when-stopped' }))
    const [check] = await w.effects.checkDependencies({ packageIds: [w.peer] })
    assert.equal(check?.isRunning, false)
  }),
]
