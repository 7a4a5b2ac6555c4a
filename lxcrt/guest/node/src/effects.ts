import type { Context } from './context'

/**
 * The effects that the host serves, by their names on the wire. A package sees
 * them in camel case, nested at the dots: `action.create-task` is
 * `effects.action.createTask`.
 */
export const METHODS = [
  'action.clear',
  'action.clear-tasks',
  'action.create-task',
  'action.export',
  'action.get-input',
  'action.run',
  'bind',
  'bind-range',
  'check-dependencies',
  'clear-bindings',
  'clear-service-interfaces',
  'echo',
  'export-range-service-interface',
  'export-service-interface',
  'get-container-ip',
  'get-data-version',
  'get-dependencies',
  'get-host-info',
  'get-installed-packages',
  'get-os-ip',
  'get-outbound-gateway',
  'get-service-interface',
  'get-service-manifest',
  'get-service-port-forward',
  'get-ssl-certificate',
  'get-ssl-key',
  'get-status',
  'get-system-smtp',
  'git-info',
  'list-service-interfaces',
  'mount',
  'notification.create',
  'plugin.url.clear-urls',
  'plugin.url.export-url',
  'plugin.url.register',
  'rebuild',
  'restart',
  'set-backup-progress',
  'set-data-version',
  'set-dependencies',
  'set-health',
  'set-init-progress',
  'set-main-status',
  'shutdown',
  'subcontainer.create-fs',
  'subcontainer.destroy-fs',
] as const

/** The object handed to a package's functions. */
export interface Effects {
  readonly eventId: string | null
  /** Runs when something read with `const` has changed; gone once the context is left. */
  constRetry?: (() => void) | undefined
  readonly isInContext: boolean
  child(name: string): Effects
  onLeaveContext(fn: () => unknown): void
  clearCallbacks(options: { only: number[] } | { except: number[] }): Promise<unknown>
  [effect: string]: unknown
}

/** Builds the effects object of a context. */
export function effectsOf(context: Context): Effects {
  const effects: Effects = {
    eventId: context.eventId,
    constRetry: undefined,
    get isInContext() {
      return !context.left
    },
    child: name => context.enter(name).effects,
    onLeaveContext: fn => context.onLeave(fn),
    clearCallbacks: options => context.clearCallbacks(options),
  }
  for (const method of METHODS) {
    const path = method.split('.').map(camel)
    const name = path.pop()!
    let at: Record<string, unknown> = effects
    for (const part of path) at = (at[part] ??= {}) as Record<string, unknown>
    at[name] = (options?: Record<string, unknown>) => context.call(method, options)
  }
  return effects
}

function camel(name: string): string {
  return name.replace(/-([a-z])/g, (_, c: string) => c.toUpperCase())
}
