'use strict'
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { test, beforeEach } = require('node:test')
const { runtime, folder, fakeHost, start, until, seen, reset, PLAIN } = require('./kit')

beforeEach(reset)

async function inited(t, answer) {
  const all = await start(t, PLAIN, answer)
  await all.client.call('init', { id: 'EV', kind: null })
  return { ...all, effects: seen.init.effects }
}

test('every effect has its name, nested, and carries the event id', async t => {
  const { host, effects } = await inited(t, r => ({ result: r.method }))
  for (const method of runtime.effects.METHODS) {
    const fn = method.split('.').reduce((o, part) => o[part.replace(/-(.)/g, (_, c) => c.toUpperCase())], effects)
    assert.equal(await fn({ a: 1, gone: undefined }), method)
    const call = host.calls.at(-1)
    assert.deepEqual(call.params, { a: 1, eventId: 'EV' })
    assert.match(call.callId, /^[0-9a-f-]{36}$/)
  }
  assert.equal(await effects.action.createTask({}), 'action.create-task')
  assert.equal(await effects.plugin.url.exportUrl({}), 'plugin.url.export-url')
  assert.equal(await effects.getDependencies(), 'get-dependencies')
  assert.deepEqual(Object.keys(host.calls[0]), ['id', 'method', 'params', 'callId'])
  assert.deepEqual(host.calls.map(c => c.id), host.calls.map((_, i) => i + 1))
  assert.equal(await effects.child('x').echo({}), 'echo')
  assert.equal(host.calls.at(-1).params.eventId, 'EV', 'children keep the event id')
})

test('main has no event id', async t => {
  const { client, host } = await inited(t)
  await client.call('start')
  await seen.main.effects.setHealth({ id: 'web', name: 'Web', result: 'success', message: null })
  assert.deepEqual(host.calls.at(-1).params, { id: 'web', name: 'Web', result: 'success', message: null })
})

test('errors of the host', async t => {
  let error
  const { effects } = await inited(t, () => (typeof error === 'string' ? error : { error }))
  const message = async e => {
    error = e
    return effects.echo({}).then(() => 'no error', e => e.message)
  }
  assert.equal(await message({ code: 6, message: 'Not Found', data: { details: 'no image', debug: 'at x' } }), 'Not Found: no image\nat x@echo')
  assert.equal(await message({ code: 6, message: 'Not Found', data: { details: 'no image', debug: '' } }), 'Not Found: no image@echo')
  assert.equal(await message({ code: -32601, message: 'Method not found', data: 'echo' }), 'Method not found: echo@echo')
  assert.equal(await message({ code: 1, message: 'Unknown', data: null }), 'Unknown@echo')
  assert.match(await message('{"id":1}'), /malformed answer/)
  assert.match(await message('garbage'), /malformed answer/)
  error = { code: 38, message: 'x' }
  await assert.rejects(effects.echo({}), e => e instanceof Error && e.code === 38)
})

test('large answers and split characters', async t => {
  const text = '😀é'.repeat(200_000)
  const { effects } = await inited(t, () => ({ result: text }))
  assert.equal(await effects.echo({ message: text }), text)
})

test('callbacks fire once and are forgotten', async t => {
  const { client, host, effects } = await inited(t)
  let fired = 0
  await effects.getStatus({ callback: (...args) => (fired += args.length || 100) })
  await effects.getSystemSmtp({ callback: () => assert.fail() })
  assert.deepEqual(host.calls.map(c => c.params.callback), [1, 2])
  await effects.getStatus({ callback: null })
  assert.equal(host.calls.at(-1).params.callback, null)
  assert.deepEqual((await client.call('selfstead.status')).callbacks, [1, 2])
  const fire = params => client.send(JSON.stringify({ method: 'callback', params }) + '\n')
  fire({ id: 1, args: ['new', 'values'] })
  fire({ id: 1, args: [] })
  fire({ id: 77, args: [] })
  fire({ id: 'x' })
  await until(() => fired)
  assert.equal(fired, 2)
  assert.deepEqual((await client.call('selfstead.status')).callbacks, [2])

  // A callback that throws harms nothing.
  await effects.getStatus({ callback: () => { throw new Error('mine') } })
  fire({ id: 3, args: [] })
  assert.deepEqual((await client.call('selfstead.status')).callbacks, [2])

  await effects.clearCallbacks({ except: [] })
  assert.deepEqual(host.calls.at(-1).method, 'clear-callbacks')
  assert.deepEqual(host.calls.at(-1).params, { except: [], eventId: 'EV' })
  assert.deepEqual((await client.call('selfstead.status')).callbacks, [])

  host.answer = () => ({ error: { code: 6, message: 'Not Found', data: null } })
  await assert.rejects(effects.getServiceManifest({ packageId: 'x', callback: () => {} }))
  assert.deepEqual((await client.call('selfstead.status')).callbacks, [], 'a refused watch leaves nothing')
})

test('contexts', async t => {
  const { client, connect, host, effects } = await inited(t)
  const order = []
  const a = effects.child('a')
  const inner = a.child('inner')
  a.constRetry = () => {}
  a.onLeaveContext(() => order.push(['a', a.isInContext, a.constRetry]))
  a.onLeaveContext(() => { throw new Error('hook') })
  a.onLeaveContext(async () => { throw new Error('late hook') })
  inner.onLeaveContext(() => order.push('inner'))
  await a.getStatus({ callback: () => {} })
  await inner.getStatus({ callback: () => {} })
  await effects.getStatus({ callback: () => {} })
  const again = effects.child('a')
  assert.deepEqual(order, ['inner', ['a', false, undefined]])
  assert.equal(inner.isInContext, false)
  assert.equal(again.isInContext, true)
  await until(() => host.calls.filter(c => c.method === 'clear-callbacks').length === 2)
  assert.deepEqual(host.calls.filter(c => c.method === 'clear-callbacks').map(c => c.params), [{ only: [2] }, { only: [1] }])
  assert.deepEqual((await client.call('selfstead.status')).callbacks, [3])

  // Made too late: hooks run soon, children are born left; effects still work.
  let late = 0
  a.onLeaveContext(() => late++)
  assert.equal(late, 0)
  await until(() => late === 1)
  assert.equal(a.child('x').isInContext, false)
  assert.equal(await a.subcontainer.destroyFs({ guid: 'G' }), null)

  // A procedure's context lives until the procedure runs again.
  const contexts = []
  seen.actions = { x: { run: async o => { contexts.push(o.effects) } } }
  const run = () => client.call('execute', { id: 'E' + contexts.length, procedure: '/actions/x/run', input: {} })
  await run()
  assert.equal(contexts[0].isInContext, true)
  await run()
  assert.deepEqual(contexts.map(c => [c.eventId, c.isInContext]), [['E0', false], ['E1', true]])

  // A run overtaken by the next one keeps its context until it ends.
  const gos = []
  seen.actions = { y: { run: async o => { contexts.push(o.effects); await new Promise(resolve => gos.push(resolve)) } } }
  const early = client.call('execute', { id: 'F', procedure: '/actions/y/run', input: {} })
  const over = connect().call('execute', { id: 'G', procedure: '/actions/y/run', input: {} })
  await until(() => gos.length === 2)
  assert.deepEqual(contexts.slice(2).map(c => [c.isInContext]), [[true], [true]])
  gos.forEach(go => go())
  await Promise.all([early, over])
  assert.deepEqual(contexts.slice(2).map(c => [c.eventId, c.isInContext]).sort(), [['F', false], ['G', true]])

  let left = 0
  seen.onUninit = o => { assert.equal(o.effects.isInContext, true); o.effects.onLeaveContext(() => left++) }
  await client.call('exit', { id: 'X', target: null })
  assert.equal(left, 1)
})

test("main's constRetry restarts once, while main is up", async t => {
  const { client, host } = await inited(t)
  await client.call('start')
  const { effects } = seen.main
  effects.constRetry()
  effects.constRetry()
  await until(() => host.calls.length)
  assert.deepEqual(host.calls.map(c => c.method), ['restart'])
  await client.call('stop')
  assert.equal(effects.constRetry, undefined)
  await client.call('start')
  const retry = seen.main.effects.constRetry
  await client.call('stop')
  retry()
  await client.call('selfstead.status')
  assert.equal(host.calls.length, 1)
})

test('effects outlive the host', async t => {
  const { dir, host, effects } = await inited(t)
  await host.close()
  const pending = Promise.all(['a', 'b', 'c'].map(message => effects.echo({ message })))
  const second = await fakeHost(t, dir, r => ({ result: r.params.message }))
  assert.deepEqual(await pending, ['a', 'b', 'c'])
  assert.deepEqual(second.calls.map(c => c.params.message), ['a', 'b', 'c'], 'in the order they were made')
  assert.equal(new Set(second.calls.map(c => c.callId)).size, 3)
  assert.ok(second.calls.every(c => !('repeat' in c)), 'no host has seen them before')

  // Killed between request and answer: the same call, under the same id.
  let cuts = 0
  second.answer = r => (cuts++ < 2 ? null : { result: r.params.message })
  assert.equal(await effects.echo({ message: 'd' }), 'd')
  const tries = second.calls.slice(3)
  assert.equal(tries.length, 3)
  assert.equal(tries[0].repeat, undefined)
  assert.deepEqual(tries[1], { ...tries[0], repeat: true })
  assert.deepEqual(tries[2], tries[1])

  // Cut in the middle of the answer.
  cuts = 0
  second.server.removeAllListeners('connection')
  second.server.on('connection', s => {
    s.on('error', () => {})
    s.once('data', () => (cuts++ ? s.end('{"id":1,"result":"whole"}') : s.end('{"id":1,"res')))
  })
  assert.equal(await effects.echo({}), 'whole', 'a last line may lack its end')
  assert.equal(cuts, 2)
})

test('patience ends', async t => {
  const dir = folder(t)
  const client = new runtime.host.HostClient(path.join(dir, 'host.sock'), 30)
  await assert.rejects(client.call('echo', {}), /ENOENT.*@echo/)
  fs.writeFileSync(path.join(dir, 'host.sock'), '')
  await assert.rejects(client.call('echo', {}), /ECONNREFUSED.*@echo/)
})

test('a flood of effects', async t => {
  const { effects } = await inited(t, r => ({ result: r.params.n }))
  const all = await Promise.all(Array.from({ length: 600 }, (_, n) => effects.echo({ n })))
  assert.deepEqual(all, all.map((_, n) => n))
})

test('calls that wait for other calls', async t => {
  const { host, effects } = await inited(t)
  const waiting = []
  host.answer = r => (r.params.wait ? new Promise(resolve => waiting.push(resolve)) : { result: 'quick' })
  const slow = Array.from({ length: 200 }, () => effects.echo({ wait: true }))
  assert.equal(await effects.echo({}), 'quick')
  await until(() => waiting.length === 200)
  for (const resolve of waiting) resolve({ result: 'slow' })
  assert.ok((await Promise.all(slow)).every(r => r === 'slow'))
})
