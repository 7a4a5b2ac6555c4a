'use strict'
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { test, beforeEach } = require('node:test')
const { start, until, seen, reset, PLAIN } = require('./kit')

beforeEach(reset)
const ID = 'EVENTID'

test('a package runs from init to exit', async t => {
  const { client, exits, host } = await start(t, PLAIN)
  assert.deepEqual(await client.call('selfstead.status'), { protocol: 2, initialized: false, started: false, callbacks: [] })
  assert.deepEqual(await client.ask('init', { id: ID, kind: 'install' }), { jsonrpc: '2.0', id: 2, result: null })
  assert.equal(seen.init.kind, 'install')
  assert.equal(seen.init.effects.eventId, ID)
  assert.equal(await client.call('init', { id: 'OTHER', kind: null }), null)
  assert.equal(seen.inits, 1, 'after success it is a no-op')

  assert.equal(await client.call('start', {}), null)
  assert.equal(seen.main.effects.eventId, null)
  assert.equal(await client.call('start', {}), null)
  assert.equal((await client.call('selfstead.status')).started, true)
  let terms = 0
  seen.onTerm = () => terms++
  assert.equal(seen.main.effects.isInContext, true)
  assert.equal(await client.call('stop', {}), null)
  assert.equal(await client.call('stop', {}), null)
  assert.equal(terms, 1)
  assert.equal(seen.main.effects.isInContext, false)
  await client.call('start')
  seen.onUninit = () => assert.equal(terms, 2, 'main is down before uninit')

  assert.equal(await client.call('exit', { id: 'BYE', target: '1.2.3:4' }), null)
  assert.equal(seen.uninit.effects.eventId, 'BYE')
  assert.ok('satisfies' in seen.uninit.target)
  assert.equal(String(seen.uninit.target), '1.2.3:4')
  await until(() => exits.length)
  assert.deepEqual(exits, [0])
  assert.deepEqual(host.calls, [])
})

test('exit without an id ends the process too', async t => {
  const { client, exits } = await start(t, PLAIN)
  await client.call('init', { id: ID, kind: null })
  client.send('{"method":"exit","params":{"id":"x","target":null}}\n')
  await until(() => exits.length)
  assert.deepEqual(exits, [0])
})

test('exit targets', async t => {
  const { client } = await start(t, PLAIN)
  await client.call('init', { id: ID, kind: null })
  for (const [target, text, kind] of [
    ['>=1:0 <2:0', '>=1:0 && <2:0', 'satisfiedBy'],
    ['#knots:29.1:0', '#knots:29.1:0', 'satisfies'],
  ]) {
    await client.call('exit', { id: ID, target })
    assert.equal(String(seen.uninit.target), text)
    assert.ok(kind in seen.uninit.target)
  }
  await client.call('exit', { id: ID, target: null })
  assert.equal(seen.uninit.target, null)
  const { error } = await client.ask('exit', { id: ID, target: 'x' })
  assert.equal(error.code, 1)
  assert.match(error.data.details, /invalid version range/)
})

test('a failed init may be repeated; a running one is joined', async t => {
  const { client, connect } = await start(t, PLAIN)
  let left = 0
  seen.onInit = ({ effects }) => {
    effects.onLeaveContext(() => left++)
    throw new Error('no disk')
  }
  const failed = await client.ask('init', { id: ID, kind: 'install' })
  assert.equal(failed.error.code, 0)
  assert.equal(failed.error.message, 'object')
  assert.equal(failed.error.data.details, 'Error: no disk')
  assert.match(failed.error.data.debug, /^Error: no disk\n +at /)
  assert.equal(left, 1, 'what it set up is taken down')

  const early = await client.ask('execute', { id: ID, procedure: '/backup/create', input: null, timeout: null })
  assert.deepEqual([early.error.code, early.error.message, early.error.data.details], [1, 'object', 'Error: System not initialized'])
  assert.match((await client.ask('start')).error.data.details, /System not initialized/)

  let go
  seen.onInit = () => new Promise(resolve => (go = resolve))
  const first = client.call('init', { id: ID, kind: 'install' })
  const second = connect().call('init', { id: ID, kind: 'install' })
  await until(() => go)
  go()
  assert.deepEqual(await Promise.all([first, second]), [null, null])
  assert.equal(seen.inits, 2)
})

test('missing, legacy and broken bundles', async t => {
  const { client, pkg } = await start(t, null)
  const init = async () => (await client.ask('init', { id: ID, kind: null })).error.data.details
  assert.match(await init(), /index\.js not found/)
  fs.writeFileSync(path.join(pkg, 'embassy.js'), '')
  assert.match(await init(), /0\.3\.5.*not supported/)
  fs.writeFileSync(path.join(pkg, 'index.js'), 'exports.init = 1')
  assert.match(await init(), /does not export the function init/)
})

test('errors by kind', async t => {
  const { client } = await start(t, PLAIN)
  for (const [line, code, message, id] of [
    ['{"id":7}', -32602, 'Invalid params', 7],
    ['{"id":"s","method":"eval","params":{"script":"1"}}', -32601, 'Method not found', 's'],
    ['nonsense', 1, 'object', null],
    ['[1]', 1, 'object', null],
    ['{"id":{},"method":"start"}', 1, 'object', null],
    ['{"id":1,"method":"init","params":{"id":"x"}}', 1, 'object', 1],
    ['{"id":1,"method":"init","params":{"id":"x","kind":"upgrade"}}', 1, 'object', 1],
    ['{"id":1,"method":"init"}', 1, 'object', 1],
    ['{"id":1,"method":"execute","params":{"id":"x","procedure":"/nope"}}', 1, 'object', 1],
    ['{"id":null,"method":"execute","params":{"id":"x","procedure":"/actions/a/other"}}', 1, 'object', null],
  ]) {
    client.send(line + '\n')
    const response = await client.line()
    assert.deepEqual([response.jsonrpc, response.error.code, response.error.message, response.id], ['2.0', code, message, id], line)
    assert.equal(typeof response.error.data.details, 'string')
  }
  client.send('{"id":8,"method":"what"}\n')
  assert.equal((await client.line()).error.data.details, 'what')
  // Notifications and blank lines are not answered.
  client.send('\n\n{"method":"what"}\n{"method":"stop"}\n{"id":9,"method":"callback","params":{"id":99,"args":[]}}\n{"id":10,"method":"stop"}\n')
  assert.deepEqual(await client.line(), { jsonrpc: '2.0', id: 10, result: null })
})

test('procedures', async t => {
  const { client } = await start(t, PLAIN)
  await client.call('init', { id: ID, kind: null })
  seen.actions = {
    conf: {
      getInput: async ({ effects, prefill }) => ({ eventId: effects.eventId, spec: {}, value: prefill }),
      run: async ({ effects, input }) => ({ version: '1', title: effects.eventId, message: JSON.stringify(input), result: null }),
    },
    none: { getInput: async () => undefined, run: async () => undefined },
    bad: {
      run: async () => {
        throw { error: 'told so', code: 7 }
      },
      getInput: async () => {
        throw { error: 'no code' }
      },
    },
    worse: {
      run: async () => {
        throw new Error('plain')
      },
      getInput: async () => ({ big: 1n }),
    },
  }
  const execute = (procedure, input, method = 'execute') => client.ask(method, { id: 'E1', procedure, input, timeout: 30 })
  assert.deepEqual((await execute('/actions/conf/getInput', { prefill: { a: 'ü' } })).result, { eventId: 'E1', spec: {}, value: { a: 'ü' } })
  assert.equal((await execute('/actions/conf/getInput', null)).result.value, null)
  assert.equal((await execute('/actions/conf/run', { input: [1] }, 'sandbox')).result.message, '[1]')
  assert.equal((await execute('/actions/none/run', {})).result, null)
  assert.deepEqual((await execute('/actions/bad/run', {})).error, { code: 7, message: 'told so' })
  assert.deepEqual((await execute('/actions/bad/getInput', {})).error, { code: 0, message: 'no code' })
  assert.deepEqual((await execute('/actions/worse/run', {})).error, { code: 0, message: 'Error: plain' })
  assert.match((await execute('/actions/worse/getInput', {})).error.data.details, /BigInt/)
  assert.deepEqual((await execute('/actions/gone/run', {})).error, { code: 0, message: 'Error: action gone not found' })
  for (const idle of ['/packageInit', '/packageUninit', '/backup/restore']) assert.equal((await execute(idle, null)).result, null)
  let backups = 0
  seen.onBackup = () => backups++
  assert.equal((await execute('/backup/create', null)).error, undefined)
  assert.equal(backups, 1)
})

test('a host that asks again joins what it asked for', async t => {
  const { client, connect, exits } = await start(
    t,
    PLAIN +
      `
let runs = 0, leaves = 0
exports.actions = { get: () => ({ run: async () => { const n = ++runs; await new Promise(done => setTimeout(done, 60)); if (n === 3) throw new Error('third'); return n } }) }
exports.uninit = async () => { const n = ++leaves; await new Promise(done => setTimeout(done, 60)); if (n === 1) throw new Error('not yet'); globalThis.leaves = leaves }`,
  )
  await client.call('init', { id: ID, kind: null })
  const run = (callId, c = client) => c.ask('execute', { id: 'E', procedure: '/actions/a/run', input: {}, timeout: 30, callId })
  const other = connect() // of the next host
  const [first, second] = await Promise.all([run('one'), run('one', other)])
  assert.deepEqual([first.result, second.result], [1, 1])
  assert.equal((await run('one')).result, 1, 'after its end, too')
  assert.equal((await run('two')).result, 2)
  assert.equal((await run('three')).error.message, 'Error: third')
  assert.equal((await run('three')).error.message, 'Error: third', 'a failure is an answer')
  assert.equal((await run('')).result, 4)
  assert.equal((await run()).result, 5)
  for (let i = 0; i < 64; i++) await run('fill', client), await client.ask('execute', { id: 'E', procedure: '/packageInit', callId: 'idle' + i })
  assert.notEqual((await run('one')).result, 1, 'memory is bounded')

  const leave = (target, c = client) => c.ask('exit', { id: 'X', target })
  const failed = await Promise.all([leave(null), leave(null, other)])
  assert.deepEqual(failed.map(f => f.error.data.details), ['Error: not yet', 'Error: not yet'])
  assert.deepEqual(exits, [])
  const left = await Promise.all([leave(null), leave(null, other)])
  assert.deepEqual(left.map(f => f.error), [undefined, undefined])
  assert.equal(globalThis.leaves, 2, 'the package was asked once more, and once only')
})

test('requests of one connection run side by side', async t => {
  const { client } = await start(t, PLAIN)
  await client.call('init', { id: ID, kind: null })
  let go
  seen.actions = {
    slow: { run: () => new Promise(resolve => (go = () => resolve('slow'))) },
    fast: { run: async () => 'fast' },
  }
  const run = (id, name) => client.send(JSON.stringify({ id, method: 'execute', params: { id: 'E', procedure: `/actions/${name}/run`, input: {} } }) + '\n')
  run(1, 'slow')
  run(2, 'fast')
  assert.deepEqual(await client.line(), { jsonrpc: '2.0', id: 2, result: 'fast' })
  client.socket.end() // half closed: the answer still comes
  go()
  assert.deepEqual(await client.line(), { jsonrpc: '2.0', id: 1, result: 'slow' })
})

test('characters split over chunks stay whole', async t => {
  const { client } = await start(t, PLAIN)
  await client.call('init', { id: ID, kind: null })
  seen.actions = { echo: { run: async ({ input }) => input } }
  const text = 'añb€c😀' + 'é'.repeat(1000)
  const bytes = Buffer.from(JSON.stringify({ id: 1, method: 'execute', params: { id: 'E', procedure: '/actions/echo/run', input: { input: text } } }) + '\n')
  for (let i = 0; i < bytes.length; i++) {
    client.send(bytes.subarray(i, i + 1))
    if (i % 100 === 0 || bytes[i] > 127) await new Promise(setImmediate)
  }
  assert.equal((await client.line()).result, text)
})

test('start and stop in the middle of each other', async t => {
  const { client, connect } = await start(t, PLAIN)
  await client.call('init', { id: ID, kind: null })
  let built
  let terms = 0
  seen.onMain = () => new Promise(resolve => (built = resolve))
  seen.onTerm = () => terms++
  const starting = client.call('start')
  await until(() => built)
  const again = connect().call('start')
  const stopping = connect().call('stop')
  await until(() => !seen.main.effects.isInContext)
  built()
  await Promise.all([starting, again, stopping])
  assert.equal(terms, 1)

  seen.onMain = () => {
    throw new Error('no chain')
  }
  assert.equal((await client.ask('start')).error.data.details, 'Error: no chain')
  assert.equal(seen.main.effects.isInContext, false)
  assert.equal((await client.call('selfstead.status')).started, false)
  let down
  seen.onMain = undefined
  await client.call('start')
  seen.onTerm = () => new Promise(resolve => (down = resolve))
  const slow = client.call('stop')
  await until(() => down)
  const restarted = connect().call('start')
  down()
  await Promise.all([slow, restarted])
  assert.equal((await client.call('selfstead.status')).started, true)
  seen.onTerm = () => {
    throw new Error('stuck')
  }
  assert.equal((await client.ask('stop')).error.data.details, 'Error: stuck')
  assert.equal((await client.call('selfstead.status')).started, false)
})
