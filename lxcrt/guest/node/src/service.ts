import * as fs from 'node:fs'
import * as net from 'node:net'
import { LineReader } from './lines'
import { procedureError, Refused, RpcError, thrownError, type WireError } from './rpc'

/** What the host may ask of this process. Each result is sent as JSON, undefined as null. */
export interface Methods {
  init(params: unknown): Promise<unknown>
  start(): Promise<unknown>
  stop(): Promise<unknown>
  exit(params: unknown): Promise<unknown>
  execute(params: unknown): Promise<unknown>
  callback(params: unknown): void
  status(): unknown
  /** Runs once the answer to `exit` has been handed to the kernel. */
  exited(): void
}

type Id = string | number | null

/**
 * Listens on service.sock: JSON objects, one a line, any number of requests a
 * connection, answered as they complete.
 */
export function serve(path: string, methods: Methods): Promise<net.Server> {
  fs.rmSync(path, { force: true })
  // The host may half-close after its last request; answers still go out.
  const server = net.createServer({ allowHalfOpen: true }, socket => accept(socket, methods))
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      server.on('error', e => console.error('service socket:', e))
      resolve(server)
    })
  })
}

function accept(socket: net.Socket, methods: Methods): void {
  const reader = new LineReader()
  let running = 0
  let ended = false
  const finish = () => {
    if (ended && running === 0) socket.end()
  }
  const take = (line: string) => {
    running++
    void answer(line, methods).then(reply => {
      running--
      const done = () => {
        if (reply.last) methods.exited()
      }
      if (reply.text) socket.write(reply.text + '\n', done)
      else done()
      finish()
    })
  }
  socket.on('data', chunk => reader.feed(chunk).forEach(take))
  socket.on('end', () => {
    const rest = reader.rest()
    ended = true
    if (rest) take(rest)
    finish()
  })
  // The host went away: what it asked for keeps running.
  socket.on('error', () => socket.destroy())
}

/** Runs one request. There is no text for notifications; after the last one the process ends. */
async function answer(line: string, methods: Methods): Promise<{ text: string | null; last: boolean }> {
  let id: Id | undefined = null
  let method = ''
  let result: unknown
  let error: WireError | undefined
  try {
    const request = parse(line)
    id = request.id
    method = request.method
    result = await dispatch(method, request.params, methods)
    if (method === 'callback') return { text: null, last: false }
  } catch (e) {
    error = shape(method, e)
  }
  const last = method === 'exit' && !error
  if (id === undefined) {
    if (error) console.error(`notification ${method}:`, error)
    return { text: null, last }
  }
  let text: string
  try {
    text = JSON.stringify(error ? { jsonrpc: '2.0', id, error } : { jsonrpc: '2.0', id, result: result ?? null })
  } catch (e) {
    error = thrownError(0, e) // a result that JSON cannot hold
    text = JSON.stringify({ jsonrpc: '2.0', id, error })
  }
  return { text, last }
}

function parse(line: string): { id: Id | undefined; method: string; params: unknown } {
  let request: unknown
  try {
    request = JSON.parse(line)
  } catch (e) {
    throw new Refused(e)
  }
  if (typeof request !== 'object' || request === null || Array.isArray(request)) {
    throw new Refused(new Error('a request must be an object'))
  }
  const { id, method, params } = request as Record<string, unknown>
  if (id !== undefined && id !== null && typeof id !== 'string' && typeof id !== 'number') {
    throw new Refused(new Error('the id must be a string, a number or null'))
  }
  return { id, method: method as string, params }
}

async function dispatch(method: unknown, params: unknown, methods: Methods): Promise<unknown> {
  switch (method) {
    case 'init':
      return methods.init(params)
    case 'start':
      return methods.start()
    case 'stop':
      return methods.stop()
    case 'exit':
      return methods.exit(params)
    case 'execute':
    case 'sandbox':
      return methods.execute(params)
    case 'callback':
      return methods.callback(params)
    case 'selfstead.status':
      return methods.status()
  }
  if (typeof method !== 'string') {
    throw new RpcError(-32602, 'Invalid params', { details: 'the method is missing', debug: null })
  }
  throw new RpcError(-32601, 'Method not found', { details: method, debug: null })
}

function shape(method: string, thrown: unknown): WireError {
  if (thrown instanceof Refused) return thrownError(1, thrown.cause)
  return method === 'execute' || method === 'sandbox' ? procedureError(thrown) : thrownError(0, thrown)
}
