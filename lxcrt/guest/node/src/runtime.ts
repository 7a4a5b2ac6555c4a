import { loadBundle, type Bundle, type InitKind, type Running } from './bundle'
import { Callbacks } from './callbacks'
import { Context } from './context'
import type { Effects } from './effects'
import { parseTarget } from './exver'
import type { HostClient } from './host'
import { Refused } from './rpc'
import type { Methods } from './service'

const KINDS: readonly unknown[] = ['install', 'update', 'restore', null]
const ACTION = /^\/actions\/([^/]+)\/(getInput|run)$/
/** Procedures of older systems that are accepted and do nothing. */
const IDLE: readonly string[] = ['/packageInit', '/packageUninit', '/backup/restore']

/** How many runs that a host has named are remembered. */
const NAMED = 64

/** A main chain that has been asked for. */
interface Main {
  context: Context
  running: Promise<Running>
}

/**
 * One package's code: loaded once, initialised once, its main chain started
 * and stopped, its procedures run, all as the host asks.
 */
export class Runtime implements Methods {
  private readonly folder: string
  private readonly onExit: () => void
  private readonly callbacks = new Callbacks()
  private readonly root: Context
  private bundle: Bundle | null = null
  private initialising: Promise<void> | null = null
  private initialised = false
  private main: Main | null = null
  private stopping: Promise<void> | null = null
  private readonly latest = new Map<string, { name: string; busy: boolean }>()
  private runs = 0
  private readonly named = new Map<string, Promise<unknown>>()
  private exiting: { target: string; done: Promise<void> } | null = null

  constructor(folder: string, host: Pick<HostClient, 'call'>, onExit: () => void) {
    this.folder = folder
    this.onExit = onExit
    this.root = new Context({ host, callbacks: this.callbacks }, null)
  }

  /** Initialises the package. A call while one is running joins it; after success it does nothing. */
  init(params: unknown): Promise<void> {
    const { id, kind } = object(params)
    if (typeof id !== 'string') throw new Refused(new Error('init: id must be a string'))
    if (!KINDS.includes(kind)) throw new Refused(new Error('init: kind must be install, update, restore or null'))
    if (!this.initialising) {
      this.initialising = this.initialise(id, kind as InitKind)
      this.initialising.then(
        () => (this.initialised = true),
        () => {
          this.initialising = null // another attempt may follow
          this.root.leave('init')
        },
      )
    }
    return this.initialising
  }

  private async initialise(eventId: string, kind: InitKind): Promise<void> {
    this.bundle ??= loadBundle(this.folder)
    await this.bundle.init({ effects: this.root.enter('init', eventId).effects, kind })
  }

  /** Builds the main chain; its processes come up later. No-op while it is up or coming up. */
  async start(): Promise<void> {
    while (this.stopping) await this.stopping.catch(() => {})
    if (!this.main) {
      const bundle = this.initialisedBundle()
      const context = this.root.enter('main')
      const { effects } = context
      let asked = false
      effects.constRetry = () => {
        if (asked || context.left) return
        asked = true
        ;(effects.restart as () => Promise<unknown>)().catch(e => console.error('restart:', e))
      }
      const main: Main = { context, running: build(bundle, effects) }
      this.main = main
      main.running.catch(() => {
        context.leaveSelf()
        if (this.main === main && !this.stopping) this.main = null
      })
    }
    await this.main.running
  }

  /** Leaves the main context and waits until every process is down. */
  stop(): Promise<void> {
    this.stopping ??= this.terminate().finally(() => (this.stopping = null))
    return this.stopping
  }

  private async terminate(): Promise<void> {
    const main = this.main
    if (!main) return
    try {
      this.root.leave('main')
      const running = await main.running.catch(() => null) // start has reported it
      await running?.term()
    } finally {
      this.main = null
    }
  }

  /**
   * Stops, then lets the package prepare for a version, a range, or its removal
   * (null). A call for the same joins the one under way; a failed one may be
   * repeated.
   */
  async exit(params: unknown): Promise<void> {
    const { id, target } = object(params)
    if (typeof id !== 'string') throw new Refused(new Error('exit: id must be a string'))
    let parsed
    try {
      parsed = parseTarget(target ?? null)
    } catch (e) {
      throw new Refused(e)
    }
    const name = String(target ?? null)
    const before = this.exiting
    if (before?.target === name) return before.done
    const leave = async () => {
      await before?.done.catch(() => {})
      await this.stop()
      const bundle = (this.bundle ??= loadBundle(this.folder))
      const context = this.root.enter('exit', id)
      try {
        await bundle.uninit({ effects: context.effects, target: parsed })
      } finally {
        this.root.leave('exit')
      }
    }
    const mine = { target: name, done: leave() }
    this.exiting = mine
    mine.done.catch(() => {
      if (this.exiting === mine) this.exiting = null
    })
    return mine.done
  }

  exited(): void {
    this.onExit()
  }

  /** Ends without the package's say: what SIGTERM asks for. */
  async shutdown(): Promise<void> {
    await this.stop().catch(e => console.error('stop:', e))
    this.root.leaveSelf()
  }

  /** Runs a procedure. Asked again under the same call id, it answers with the same run. */
  async execute(params: unknown): Promise<unknown> {
    const { id, procedure, input, callId } = object(params)
    if (typeof id !== 'string') throw new Refused(new Error('execute: id must be a string'))
    const action = typeof procedure === 'string' ? ACTION.exec(procedure) : null
    if (!action && procedure !== '/backup/create' && !IDLE.includes(procedure as string)) {
      throw new Refused(new Error(`execute: unknown procedure ${JSON.stringify(procedure)}`))
    }
    let bundle: Bundle
    try {
      bundle = this.initialisedBundle()
    } catch (e) {
      throw new Refused(e)
    }
    const name = typeof callId === 'string' && callId !== '' ? callId : null
    const known = name !== null && this.named.get(name)
    if (known) return known
    const run = this.inContext(procedure as string, id, async effects => {
      if (procedure === '/backup/create') {
        if (!bundle.createBackup) throw new Error('the package has no createBackup')
        return bundle.createBackup({ effects })
      }
      if (!action) return null
      const [, name, what] = action
      const found = bundle.actions?.get(name!)
      if (!found) throw new Error(`action ${name} not found`)
      const given = typeof input === 'object' && input !== null ? (input as Record<string, unknown>) : {}
      if (what === 'getInput') return found.getInput({ effects, prefill: given.prefill ?? null })
      return found.run({ effects, input: given.input })
    })
    if (name !== null) {
      this.named.set(name, run)
      if (this.named.size > NAMED) this.named.delete(this.named.keys().next().value!)
    }
    return run
  }

  /**
   * Runs a procedure in a context of its own, which lasts until the same
   * procedure is asked for again: what it made and kept may be in use. A run
   * overtaken by the next one keeps its context until it ends.
   */
  private async inContext(procedure: string, id: string, run: (effects: Effects) => Promise<unknown>): Promise<unknown> {
    const earlier = this.latest.get(procedure)
    if (earlier && !earlier.busy) this.root.leave(earlier.name)
    const mine = { name: `${procedure}#${++this.runs}`, busy: true }
    this.latest.set(procedure, mine)
    try {
      return await run(this.root.enter(mine.name, id).effects)
    } finally {
      mine.busy = false
      if (this.latest.get(procedure) !== mine) this.root.leave(mine.name)
    }
  }

  callback(params: unknown): void {
    const { id, args } = object(params)
    if (typeof id !== 'number') throw new Refused(new Error('callback: id must be a number'))
    this.callbacks.fire(id, Array.isArray(args) ? args : [])
  }

  /** For a host that takes over a container it did not start itself. */
  status(): unknown {
    return {
      protocol: 2,
      initialized: this.initialised,
      started: this.main !== null && !this.stopping,
      callbacks: this.callbacks.ids(),
    }
  }

  private initialisedBundle(): Bundle {
    if (!this.initialised || !this.bundle) throw new Error('System not initialized')
    return this.bundle
  }
}

async function build(bundle: Bundle, effects: Effects): Promise<Running> {
  const chain = await bundle.main({ effects })
  return chain.build()
}

function object(params: unknown): Record<string, unknown> {
  if (typeof params !== 'object' || params === null || Array.isArray(params)) {
    throw new Refused(new Error('params must be an object'))
  }
  return params as Record<string, unknown>
}
