import * as net from 'node:net'
import { randomUUID } from 'node:crypto'

const HOST = '/media/startos/rpc/host.sock'

/** An answer of the host as it came: every member, nothing translated. */
export interface Answer {
  jsonrpc?: unknown
  id?: unknown
  result?: unknown
  error?: { code: number; message: string; data: { details: string; debug: string; info: unknown } }
}

const pause = (ms: number) => new Promise(resolve => setTimeout(resolve, ms))

/** One exchange on a connection of its own: writes the chunks, ends its side when asked to, reads to the end. */
export function exchange(chunks: (string | Buffer)[], options: { end?: boolean; lines?: number } = {}): Promise<string[]> {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ path: HOST, allowHalfOpen: true })
    const parts: Buffer[] = []
    const lines = () => Buffer.concat(parts).toString('utf8').split('\n').filter(Boolean)
    socket.setTimeout(30_000, () => socket.destroy(new Error('no answer within 30 s')))
    socket.on('connect', async () => {
      for (const chunk of chunks) {
        socket.write(chunk)
        if (chunks.length > 1) await pause(5) // so that each arrives by itself
      }
      if (options.end) socket.end()
    })
    socket.on('data', chunk => {
      parts.push(chunk)
      if (!options.end && chunk.includes(10) && lines().length >= (options.lines ?? 1)) socket.destroy()
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(lines()))
    socket.on('end', () => socket.destroy())
  })
}

/**
 * One effect as the runtime sends it. The server may be away: like the runtime
 * this sends the call again, under the same call id, and says that it repeats.
 */
export async function request(method: unknown, params?: unknown, id: unknown = 1): Promise<Answer> {
  const call: Record<string, unknown> = { id, method, params, callId: randomUUID() }
  for (let tries = 0; ; tries++) {
    const [line] = await exchange([JSON.stringify(call) + '\n']).catch(() => [])
    if (line !== undefined) return JSON.parse(line) as Answer
    if (tries > 600) throw new Error(`${String(method)}: the host is away`)
    call.repeat = true
    await pause(100)
  }
}
