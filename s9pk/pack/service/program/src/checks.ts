import { T } from '@start9labs/start-sdk'
import * as http from 'node:http'
import * as https from 'node:https'
import { Check } from './description'
import { sdk } from './sdk'

type Result = { result: T.HealthStatus; message: string | null }

// Exit statuses that say more than that something is wrong, as StartOS has them.
const statuses: Record<number, Result['result']> = { 0: 'success', 59: 'disabled', 60: 'starting', 61: 'loading' }

type Executor = { exec(command: string[], options: object, timeout: number): Promise<{ exitCode: number | null; stdout: string | Buffer; stderr: string | Buffer }> }

/** The function, grace period and trigger that a check stands for. */
export function readiness(effects: T.Effects, check: Check, sub: Executor) {
  return {
    fn: () => run(effects, check, sub),
    ...(check.grace === null ? {} : { gracePeriod: check.grace }),
    ...(check.interval === null
      ? {}
      : { trigger: sdk.trigger.statusTrigger(check.interval, { starting: Math.min(check.interval, 1000), failure: Math.min(check.interval, 1000) }) }),
  }
}

async function run(effects: T.Effects, check: Check, sub: Executor): Promise<Result> {
  if (check.port !== null) {
    return sdk.healthCheck.checkPortListening(effects, check.port, { successMessage: check.success, errorMessage: check.failure })
  }
  if (check.http) {
    try {
      const got = await status(check.http, check.timeout)
      const good = check.http.status.length > 0 ? check.http.status.includes(got) : got < 400
      return good ? { result: 'success', message: check.success } : { result: 'failure', message: `${check.failure}: status ${got}` }
    } catch (e) {
      return { result: 'failure', message: `${check.failure}: ${e instanceof Error ? e.message : e}` }
    }
  }
  if (check.exec) {
    const { exitCode, stdout, stderr } = await sub.exec(check.exec, {}, check.timeout)
    const result = (exitCode !== null && statuses[exitCode]) || 'failure'
    const said = lastLine(stdout) ?? lastLine(stderr)
    return { result, message: result === 'success' ? (said ?? check.success) : said === null ? check.failure : `${check.failure}: ${said}` }
  }
  return { result: 'success', message: check.success }
}

const status = (check: NonNullable<Check['http']>, timeout: number): Promise<number> =>
  new Promise((resolve, reject) => {
    const client = check.tls ? https : http
    const request = client.get(
      { host: '127.0.0.1', port: check.port, path: check.path, timeout, agent: false, ...(check.tls ? { rejectUnauthorized: false } : {}) },
      answer => {
        answer.resume()
        resolve(answer.statusCode ?? 0)
        request.destroy()
      },
    )
    request.on('timeout', () => request.destroy(new Error('no answer in time')))
    request.on('error', reject)
  })

export function lastLine(text: string | Buffer): string | null {
  return text.toString().trim().split('\n').at(-1)?.trim().slice(0, 200) || null
}
