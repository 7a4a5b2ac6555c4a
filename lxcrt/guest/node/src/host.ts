import { randomUUID } from 'node:crypto'
import * as net from 'node:net'
import { LineReader } from './lines'

/** How long an effect waits for a host that is away, in milliseconds. */
const PATIENCE = 10 * 60_000
const FIRST_PAUSE = 10
const LONGEST_PAUSE = 1000

/** Calls under way at once, not counting those that have waited a while for their answer. */
const WIDTH = 64
const A_WHILE = 50

/** The host answered with an error. */
export class HostError extends Error {
  readonly code: number
  readonly data: unknown

  constructor(method: string, error: { code: number; message: string; data?: unknown }) {
    super(`${describe(error)}@${method}`)
    this.code = error.code
    this.data = error.data
  }
}

function describe(error: { message: string; data?: unknown }): string {
  const { message, data } = error
  if (typeof data === 'string') return `${message}: ${data}`
  if (typeof data !== 'object' || data === null) return message
  const { details, debug } = data as { details?: unknown; debug?: unknown }
  let text = message
  if (typeof details === 'string' && details) text += `: ${details}`
  if (typeof debug === 'string' && debug) text += `\n${debug}`
  return text
}

/** No whole answer came. Unless it was sent, the host has not seen the request. */
class Interrupted extends Error {
  readonly sent: boolean

  constructor(message: string, sent: boolean) {
    super(message)
    this.sent = sent
  }
}

/**
 * Calls effects over host.sock, a connection for each. The host may restart at
 * any time: a call without an answer is sent again, under the same call id, by
 * which the host knows a repetition. If an earlier host may have seen it, the
 * request says so too: `repeat` is true.
 */
export class HostClient {
  private readonly path: string
  private readonly patience: number
  private lastId = 0
  private away: Promise<void> | null = null
  private underWay = 0
  private readonly queue: (() => void)[] = []

  constructor(path: string, patience = PATIENCE) {
    this.path = path
    this.patience = patience
  }

  async call(method: string, params: Record<string, unknown>): Promise<unknown> {
    const id = ++this.lastId
    const request: Record<string, unknown> = { id, method, params, callId: randomUUID() }
    let text = JSON.stringify(request) + '\n'
    let since = 0
    for (;;) {
      await this.away
      try {
        return read(method, await this.inTurn(text))
      } catch (e) {
        if (!(e instanceof Interrupted)) throw e
        const now = Date.now()
        since ||= now
        if (now - since > this.patience) throw new Error(`${e.message}@${method}`)
        if (e.sent) text = JSON.stringify({ ...request, repeat: true }) + '\n'
      }
      this.away ??= this.comeback().finally(() => (this.away = null))
    }
  }

  /**
   * Waits for the host to listen again. One probe serves every call that
   * waits, so that they go out afterwards in the order in which they came: of
   * two reports the later one has to win.
   */
  private async comeback(): Promise<void> {
    const until = Date.now() + this.patience
    for (let pause = FIRST_PAUSE; Date.now() <= until; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      await new Promise(resolve => setTimeout(resolve, pause))
      if (await listens(this.path)) return
    }
  }

  /**
   * Keeps a flood of calls from overrunning the host's accept queue. A call
   * whose answer takes long makes room for others: it may be waiting for them.
   */
  private async inTurn(request: string): Promise<string> {
    if (this.underWay < WIDTH) this.underWay++
    else await new Promise<void>(resolve => this.queue.push(resolve)) // takes over a place
    let held = true
    const leave = () => {
      if (!held) return
      held = false
      const next = this.queue.shift()
      if (next) next()
      else this.underWay--
    }
    const timer = setTimeout(leave, A_WHILE)
    try {
      return await this.exchange(request)
    } finally {
      clearTimeout(timer)
      leave()
    }
  }

  /** Sends a line and waits for a line. */
  private exchange(request: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const reader = new LineReader()
      let problem = 'the host closed the connection'
      let sent = false
      const socket = net.connect(this.path)
      socket.on('connect', () => {
        sent = true
        socket.write(request)
      })
      socket.on('data', chunk => {
        const [line] = reader.feed(chunk)
        if (line === undefined) return
        resolve(line)
        socket.destroy()
      })
      socket.on('end', () => {
        const rest = reader.rest() // an answer may lack its line end
        if (rest && isJson(rest)) resolve(rest)
      })
      socket.on('error', e => {
        problem = e.message
      })
      socket.on('close', () => reject(new Interrupted(problem, sent)))
    })
  }
}

function listens(path: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = net.connect(path)
    socket.on('connect', () => {
      resolve(true)
      socket.destroy()
    })
    socket.on('error', () => resolve(false))
  })
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

function read(method: string, line: string): unknown {
  const answer: unknown = isJson(line) ? JSON.parse(line) : null
  if (typeof answer === 'object' && answer !== null) {
    if ('error' in answer && answer.error) {
      const e = answer.error as { code?: unknown; message?: unknown; data?: unknown }
      if (typeof e.code === 'number' && typeof e.message === 'string') {
        throw new HostError(method, { code: e.code, message: e.message, data: e.data })
      }
    } else if ('result' in answer) {
      return answer.result
    }
  }
  throw new Error(`malformed answer of the host: ${line.slice(0, 200)}@${method}`)
}
