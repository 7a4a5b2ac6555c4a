import type { Callbacks } from './callbacks'
import { effectsOf, type Effects } from './effects'
import type { HostClient } from './host'

/** What all contexts of a process share. */
export interface Shared {
  host: Pick<HostClient, 'call'>
  callbacks: Callbacks
}

/**
 * A span of a package's work with effects of its own. Entering a child by a
 * name that is in use leaves the old child first. Leaving runs the hooks that
 * daemons, subcontainers and watches have put there, so nothing of a context
 * outlives it; effects called afterwards still reach the host, since cleaning
 * up needs them.
 */
export class Context {
  readonly eventId: string | null
  readonly effects: Effects
  left = false
  private readonly shared: Shared
  private readonly children = new Map<string, Context>()
  private hooks: (() => unknown)[] = []
  private callbacks = new Set<number>()

  constructor(shared: Shared, eventId: string | null) {
    this.shared = shared
    this.eventId = eventId
    this.effects = effectsOf(this)
  }

  /** Makes the child context of that name, with another event id if given. */
  enter(name: string, eventId = this.eventId): Context {
    this.leave(name)
    const child = new Context(this.shared, eventId)
    if (this.left) child.leaveSelf()
    else this.children.set(name, child)
    return child
  }

  /** Leaves the child context of that name, if there is one. */
  leave(name: string): void {
    const child = this.children.get(name)
    this.children.delete(name)
    child?.leaveSelf()
  }

  /** Leaves every child, then this context. */
  leaveSelf(): void {
    if (this.left) return
    this.left = true
    this.effects.constRetry = undefined
    for (const name of [...this.children.keys()]) this.leave(name)
    const hooks = this.hooks
    this.hooks = []
    hooks.forEach(run)
    this.drop()
  }

  /** Adds a hook. When the context has been left meanwhile it runs soon: what is made late must still go. */
  onLeave(fn: () => unknown): void {
    if (this.left) setImmediate(run, fn)
    else this.hooks.push(fn)
  }

  /** Calls an effect; a function given as `callback` is registered and goes as its number. */
  async call(method: string, options: Record<string, unknown> = {}): Promise<unknown> {
    const params: Record<string, unknown> = { ...options }
    if (this.eventId !== null) params.eventId = this.eventId
    const callback = options.callback
    if (typeof callback !== 'function') return this.shared.host.call(method, params)
    const id = this.shared.callbacks.add((...args) => {
      this.callbacks.delete(id)
      return (callback as (...args: unknown[]) => unknown)(...args)
    })
    this.callbacks.add(id)
    params.callback = id
    try {
      return await this.shared.host.call(method, params)
    } catch (e) {
      this.callbacks.delete(id)
      this.shared.callbacks.drop([id])
      throw e
    }
  }

  clearCallbacks(options: { only: number[] } | { except: number[] }): Promise<unknown> {
    const { callbacks } = this.shared
    const kept = new Set('except' in options ? options.except : [])
    const only = 'only' in options ? options.only : callbacks.ids().filter(id => !kept.has(id))
    callbacks.drop(only)
    for (const id of only) this.callbacks.delete(id)
    return this.call('clear-callbacks', { ...options })
  }

  /** Tells the host that nobody waits for this context's callbacks any more. */
  private drop(): void {
    const only = this.shared.callbacks.drop(this.callbacks)
    this.callbacks.clear()
    if (only.length === 0) return
    this.shared.host.call('clear-callbacks', { only }).catch(e => console.error('clear callbacks:', e))
  }
}

function run(hook: () => unknown): void {
  void (async () => hook())().catch(e => console.error('leaving a context:', e))
}
