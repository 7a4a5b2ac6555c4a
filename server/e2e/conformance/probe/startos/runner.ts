import * as assert from 'node:assert/strict'
import { call } from '../../shared/call'
import { given, type Case, type Result, type Row, type World } from './row'
import { request, type Answer } from './socket'

/** Asks a row's question on the bare socket, then through the effects object. */
async function ask(row: Row, w: World): Promise<void> {
  const params = await given(row.params, w)
  const plain = await request(row.method, params)
  checkFrame(plain)
  await check(row, w, plain)
  if (row.once || row.method.includes('selfstead.') || typeof params !== 'object' || params === null || Array.isArray(params)) return
  let viaObject: Answer
  try {
    viaObject = { result: await call(w.effects, row.method, { ...params }) }
  } catch (e: any) {
    if (typeof e.code !== 'number') throw e
    // "<message>: <details>\n<debug>@<method>" is what packages get to see.
    const { details, debug } = e.data
    assert.equal(e.message, `${plain.error?.message}: ${details}${debug ? '\n' + debug : ''}@${row.method}`)
    viaObject = { error: { code: e.code, message: e.message, data: e.data } }
  }
  await check(row, w, viaObject)
}

function checkFrame(a: Answer): void {
  assert.equal(a.jsonrpc, '2.0')
  assert.equal(a.id, 1)
  assert.ok('result' in a !== 'error' in a, `either a result or an error: ${JSON.stringify(a).slice(0, 200)}`)
}

async function check(row: Row, w: World, a: Answer): Promise<void> {
  if (row.code === undefined) {
    assert.ok(!a.error, `error ${JSON.stringify(a.error)}`)
    if (typeof row.want === 'function') await row.want(a.result, w)
    else assert.deepEqual(a.result, row.want)
    return
  }
  assert.ok(a.error, `no error but ${JSON.stringify(a.result)}`)
  assert.equal(a.error.code, row.code, JSON.stringify(a.error))
  assert.equal(typeof a.error.message, 'string')
  assert.ok(a.error.message, 'a message')
  assert.equal(typeof a.error.data?.details, 'string')
  assert.equal(typeof a.error.data?.debug, 'string')
  if (row.says) assert.match(a.error.data.details, row.says)
}

/** Runs rows and cases one after the other; each result goes out as it is there. */
export async function run(list: (Row | Case)[], w: World, report: (r: Result) => Promise<void>): Promise<void> {
  const names = new Map<string, number>()
  for (const item of list) {
    let name = 'run' in item ? item.name : `${item.method} ${item.code === undefined ? 'answers' : `refuses with ${item.code}`} ${item.note}`
    const n = (names.get(name) ?? 0) + 1
    names.set(name, n)
    if (n > 1) name += ` (${n})`
    const since = Date.now()
    let error: string | null = null
    try {
      await ('run' in item ? item.run(w) : ask(item, w))
    } catch (e: any) {
      error = String(e?.stack ?? e).slice(0, 2000)
    }
    await report({ name, error, ms: Date.now() - since })
  }
}
