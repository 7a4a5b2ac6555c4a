'use strict'
// A fake host and small packages for the tests.
const fs = require('node:fs')
const net = require('node:net')
const os = require('node:os')
const path = require('node:path')

const runtime = require('../dist/index.js')

/** A folder that goes with the test. */
function folder(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'guest-'))
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

/**
 * Listens on host.sock of a folder. answer(request) gives the members of the
 * response besides the id ({result} or {error}), a promise of them, or null to
 * hang up; the default answers null. calls holds every request.
 */
async function fakeHost(t, dir, answer = () => ({ result: null })) {
  const host = { calls: [], answer, sockets: new Set() }
  host.server = net.createServer(socket => {
    host.sockets.add(socket)
    socket.on('close', () => host.sockets.delete(socket))
    socket.on('error', () => {})
    let text = ''
    socket.setEncoding('utf8')
    socket.on('data', async chunk => {
      text += chunk
      const end = text.indexOf('\n')
      if (end < 0) return
      const request = JSON.parse(text.slice(0, end))
      text = text.slice(end + 1)
      host.calls.push(request)
      const response = await host.answer(request)
      if (response === null) return socket.destroy()
      socket.end((typeof response === 'string' ? response : JSON.stringify({ jsonrpc: '2.0', id: request.id, ...response })) + '\n')
    })
  })
  host.close = () =>
    new Promise(resolve => {
      host.server.close(resolve)
      for (const s of host.sockets) s.destroy()
    })
  await new Promise(resolve => host.server.listen(path.join(dir, 'host.sock'), resolve))
  t.after(host.close)
  return host
}

/** A connection to service.sock with one request in flight at a time, or more. */
class Client {
  constructor(dir) {
    this.socket = net.connect(path.join(dir, 'service.sock'))
    this.socket.setEncoding('utf8')
    this.waiting = []
    this.lines = []
    this.id = 0
    let text = ''
    this.socket.on('data', chunk => {
      text += chunk
      const parts = text.split('\n')
      text = parts.pop()
      for (const part of parts) {
        const next = this.waiting.shift()
        if (next) next(JSON.parse(part))
        else this.lines.push(JSON.parse(part))
      }
    })
  }
  line() {
    return this.lines.length ? Promise.resolve(this.lines.shift()) : new Promise(resolve => this.waiting.push(resolve))
  }
  send(data) {
    this.socket.write(data)
  }
  /** The whole response to a request. */
  async ask(method, params = {}) {
    this.send(JSON.stringify({ id: ++this.id, method, params }) + '\n')
    return this.line()
  }
  /** The result, or the error thrown. */
  async call(method, params) {
    const response = await this.ask(method, params)
    if (response.error) throw Object.assign(new Error(response.error.message), response.error)
    return response.result
  }
}

/** Starts a runtime with a package whose index.js is the given text. */
async function start(t, source, answer) {
  const dir = folder(t)
  const host = await fakeHost(t, dir, answer)
  const pkg = path.join(dir, 'package')
  fs.mkdirSync(pkg)
  if (source !== null) fs.writeFileSync(path.join(pkg, 'index.js'), source)
  const exits = []
  const service = await runtime.index.run(pkg, dir, code => exits.push(code))
  const clients = []
  const connect = () => {
    const client = new Client(dir)
    clients.push(client)
    return client
  }
  t.after(() => {
    for (const c of clients) c.socket.destroy()
    return new Promise(resolve => service.server.close(resolve))
  })
  const client = connect()
  return { dir, host, client, connect, exits, pkg, runtime: service.runtime }
}

/** Waits until a condition holds; bounded. */
async function until(condition, what = String(condition)) {
  for (let i = 0; i < 2000; i++) {
    if (await condition()) return
    await new Promise(resolve => setTimeout(resolve, 2))
  }
  throw new Error('never happened: ' + what)
}

/** The shared state that a test package leaves in this process. */
const seen = (globalThis.seen = {})

const PLAIN = `
const seen = globalThis.seen
exports.init = async o => { seen.inits = (seen.inits ?? 0) + 1; seen.init = o; await seen.onInit?.(o) }
exports.main = async o => ({ build: async () => { seen.main = o; await seen.onMain?.(o); return { term: async () => { await seen.onTerm?.() } } } })
exports.uninit = async o => { seen.uninit = o; await seen.onUninit?.(o) }
exports.createBackup = async o => seen.onBackup?.(o)
exports.actions = { get: id => seen.actions?.[id] }
`

function reset() {
  for (const k of Object.keys(seen)) delete seen[k]
}

module.exports = { runtime, folder, fakeHost, start, until, seen, reset, PLAIN, Client }
