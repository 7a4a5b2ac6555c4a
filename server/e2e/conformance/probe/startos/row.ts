import * as assert from 'node:assert/strict'
import type { T } from '@start9labs/start-sdk'

/** What rows and cases know of the world. */
export interface World {
  effects: T.Effects
  self: string
  peer: string
  /** Any effect, called by the peer; its result. */
  byPeer(method: string, params?: object): Promise<any>
  /** Values that earlier rows left for later ones. */
  seen: Record<string, any>
}

type Given<V> = V | ((w: World) => V | Promise<V>)

/** One call and what has to come back. */
export interface Row {
  method: string
  params: Given<unknown>
  note: string
  /** The result: a value to equal, or a function that asserts. */
  want?: unknown
  /** The error's code. */
  code?: number
  /** What its details have to say. */
  says?: RegExp
  /** Not asked again through the effects object. */
  once?: boolean
}

const note = (params: unknown) => (typeof params === 'function' ? '' : (JSON.stringify(params) ?? 'nothing').slice(0, 90))

/** The effect answers with want: a value, or a function of the result that asserts. */
export const ok = (method: string, params: Given<unknown>, want: unknown = null, more: Partial<Row> = {}): Row => ({ method, params, want, note: note(params), ...more })

/** The effect is refused. */
export const fails = (method: string, params: Given<unknown>, code: number, says?: RegExp, more: Partial<Row> = {}): Row => ({
  method,
  params,
  code,
  note: note(params),
  ...(says && { says }),
  ...more,
})

/** Something more than one call, or something beside calls. */
export interface Case {
  name: string
  run(w: World): Promise<unknown>
}
export const test = (name: string, run: Case['run']): Case => ({ name, run })

export interface Result {
  name: string
  error: string | null
  ms: number
}

export async function given<V>(v: Given<V>, w: World): Promise<V> {
  return typeof v === 'function' ? await (v as (w: World) => V | Promise<V>)(w) : v
}

/** Waits until fn no longer throws; reports what it threw last. */
export async function eventually<V>(fn: () => V | Promise<V>, ms = 20_000): Promise<V> {
  for (const end = Date.now() + ms; ; ) {
    try {
      return await fn()
    } catch (e) {
      if (Date.now() > end) throw e
    }
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

export const like = (expected: object) => (got: any) => partly(got, expected)

/** Every member of want is in got, at any depth. */
export function partly(got: any, want: any, at = ''): void {
  if (typeof want !== 'object' || want === null || Array.isArray(want)) return assert.deepEqual(got, want, at || undefined)
  if (typeof got !== 'object' || got === null) assert.fail(`${at || 'it'} is ${JSON.stringify(got)}`)
  for (const [k, v] of Object.entries(want)) partly(got[k], v, `${at}/${k}`)
}
