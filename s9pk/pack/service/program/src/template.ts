import { description } from './description'

/** What {{…}} may speak of. */
export type Scope = { config: Record<string, unknown>; input?: unknown }

const service = { id: description.id, title: description.title, version: description.version }
const place = /\\\{\{|\{\{\s*([A-Za-z0-9_.-]+)\s*(?:\|\s*(json)\s*)?\}\}/g

/**
 * Puts values in the place of {{config.KEY}}, {{input.KEY}} and {{service.KEY}}:
 * null as nothing, lists and objects as JSON; with `| json` everything as JSON.
 * \{{ stands for itself. Text is put in as it is, whatever it holds.
 */
export function fill(text: string, scope: Scope): string {
  return text.replace(place, (whole, name: string | undefined, json: string | undefined) => {
    if (name === undefined) return whole.slice(1)
    let value: unknown = { ...scope, service }
    for (const key of name.split('.')) {
      value = value !== null && typeof value === 'object' && Object.hasOwn(value, key) ? (value as Record<string, unknown>)[key] : null
    }
    value ??= null
    if (json || (value !== null && typeof value === 'object')) return JSON.stringify(value)
    return value === null ? '' : String(value)
  })
}

export const fillAll = (texts: string[], scope: Scope) => texts.map(t => fill(t, scope))

export const fillEnv = (env: Record<string, string>, scope: Scope) =>
  Object.fromEntries(Object.entries(env).map(([k, v]) => [k, fill(v, scope)]))
