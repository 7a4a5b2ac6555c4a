import * as assert from 'node:assert/strict'
import { test, type Case } from './row'
import { exchange, request } from './socket'

const echo = (message: string, id: unknown = 7) => JSON.stringify({ id, method: 'echo', params: { message } })
const one = async (text: string | Buffer) => JSON.parse((await exchange([Buffer.concat([Buffer.from(text), Buffer.from('\n')])]))[0]!)

/** How requests and answers lie on the socket. */
export const framing: Case[] = [
  test('socket: an answer names the protocol and its request', async () => {
    for (const id of [0, 3, -1, 'text', null]) assert.deepEqual(await one(echo('x', id)), { jsonrpc: '2.0', id, result: 'x' })
  }),
  test('socket: a request without id is answered with null for it', async () => {
    assert.deepEqual(await one('{"method":"echo","params":{"message":"x"}}'), { jsonrpc: '2.0', id: null, result: 'x' })
  }),
  test('socket: a result without value is null, not missing', async () => {
    assert.deepEqual(await one('{"id":1,"method":"clear-callbacks","params":{"only":[]}}'), { jsonrpc: '2.0', id: 1, result: null })
  }),
  test('socket: params may be missing or null where none are needed', async () => {
    for (const params of ['', ',"params":null', ',"params":{}']) assert.match((await one(`{"id":1,"method":"get-os-ip"${params}}`)).result, /^\d+\./)
  }),
  test('socket: an error has code, message, details, debug and info', async () => {
    const { error, ...rest } = await one('{"id":1,"method":"get-service-manifest","params":{"packageId":"not-there"}}')
    assert.deepEqual(rest, { jsonrpc: '2.0', id: 1 })
    assert.deepEqual(Object.keys(error).sort(), ['code', 'data', 'message'])
    assert.deepEqual(Object.keys(error.data).sort(), ['debug', 'details', 'info'])
  }),
  test('socket: what is no JSON is a parse error', async () => assert.equal((await one('{"id":1,')).error.code, -32700)),
  test('socket: what is no request is an invalid request', async () => {
    for (const text of ['1', '"x"', '{"id":1}', '{"id":1,"method":5}', '{"id":{},"method":"echo"}']) assert.equal((await one(text)).error?.code, -32600, text)
  }),
  test('socket: a batch is answered with a list', async () => {
    const answers = await one(`[${echo('a', 1)},${echo('b', 2)},{"id":3,"method":"nothing"}]`)
    assert.deepEqual(answers.map((a: any) => a.result ?? a.error.code), ['a', 'b', -32601])
    assert.equal((await one('[]')).error.code, -32600)
  }),
  test('socket: several requests share a connection', async () => {
    const lines = await exchange([echo('a', 1) + '\n\n' + echo('b', 2) + '\r\n' + echo('c', 3) + '\n'], { lines: 3 })
    assert.deepEqual(lines.map(l => JSON.parse(l).result).sort(), ['a', 'b', 'c'])
  }),
  test('socket: the sending side may end before the answer, however long that is', async () => {
    const message = 'ß'.repeat(1 << 20)
    const lines = await exchange([echo(message) + '\n'], { end: true })
    assert.equal(JSON.parse(lines[0]!).result, message)
  }),
  test('socket: the last line needs no end', async () => {
    assert.equal(JSON.parse((await exchange([echo('x')], { end: true }))[0]!).result, 'x')
  }),
  test('socket: a character cut in two arrives whole', async () => {
    const bytes = Buffer.from(echo('grüße 🌍') + '\n')
    const cuts = Array.from(bytes.keys()).filter(i => bytes[i]! >= 0x80)
    assert.ok(cuts.length > 4)
    for (const cut of cuts) {
      const [line] = await exchange([bytes.subarray(0, cut), bytes.subarray(cut)])
      assert.equal(JSON.parse(line!).result, 'grüße 🌍')
    }
  }),
  test('socket: a repetition under the same call id is answered and does nothing again', async () => {
    const call = { id: 1, method: 'subcontainer.create-fs', params: { imageId: 'main' }, callId: 'conformance-' + Date.now() }
    const first = await one(JSON.stringify(call))
    const again = await one(JSON.stringify({ ...call, repeat: true }))
    assert.deepEqual(again, first)
    await request('subcontainer.destroy-fs', { guid: first.result[1] })
  }),
  test('socket: a connection that is cut harms no other', async () => {
    const net = await import('node:net')
    for (let i = 0; i < 50; i++) {
      const s = net.connect('/media/startos/rpc/host.sock', () => {
        s.write(echo('x'.repeat(1000)).slice(0, 20 * i))
        s.destroy()
      })
      s.on('error', () => {})
    }
    assert.equal((await one(echo('y'))).result, 'y')
  }),
]
