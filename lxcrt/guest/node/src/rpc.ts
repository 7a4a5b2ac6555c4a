/** An error with the numeric code that goes on the wire. */
export class RpcError extends Error {
  readonly code: number
  readonly data: unknown

  constructor(code: number, message: string, data?: unknown) {
    super(message)
    this.code = code
    this.data = data
  }
}

/** The error member of a response. */
export interface WireError {
  code: number
  message: string
  data?: unknown
}

/** `{details, debug}` of a thrown value. */
export function details(thrown: unknown): { details: string; debug: string | null } {
  return {
    details: String(thrown),
    debug: thrown instanceof Error && thrown.stack ? thrown.stack : null,
  }
}

/** Error shape of init, start, stop and exit (code 0), and of requests refused before they run (code 1). */
export function thrownError(code: 0 | 1, thrown: unknown): WireError {
  if (thrown instanceof RpcError) return wire(thrown)
  return { code, message: typeof thrown, data: details(thrown) }
}

/** Error shape of a procedure: `{error, code}` values keep their own text and code. */
export function procedureError(thrown: unknown): WireError {
  if (thrown instanceof Refused) return thrownError(1, thrown.cause)
  if (thrown instanceof RpcError) return wire(thrown)
  if (typeof thrown === 'object' && thrown !== null && 'error' in thrown && typeof thrown.error === 'string') {
    const code = 'code' in thrown && typeof thrown.code === 'number' ? thrown.code : 0
    return { code, message: thrown.error }
  }
  return { code: 0, message: String(thrown) }
}

function wire(e: RpcError): WireError {
  return { code: e.code, message: e.message, data: e.data }
}

/** Wraps what is wrong with a request itself, as opposed to what running it threw. */
export class Refused extends Error {
  constructor(why: unknown) {
    super(String(why), { cause: why })
  }
}
