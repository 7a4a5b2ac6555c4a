/** Functions that the host may call once, by number. */
export class Callbacks {
  private readonly functions = new Map<number, (...args: unknown[]) => unknown>()
  private lastId = 0

  add(fn: (...args: unknown[]) => unknown): number {
    const id = ++this.lastId
    this.functions.set(id, fn)
    return id
  }

  /** Forgets ids; returns those that were known. */
  drop(ids: Iterable<number>): number[] {
    return [...ids].filter(id => this.functions.delete(id))
  }

  has(id: number): boolean {
    return this.functions.has(id)
  }

  ids(): number[] {
    return [...this.functions.keys()]
  }

  /** Calls and forgets a function. Ids not known any more are ignored. */
  fire(id: number, args: unknown[]): void {
    const fn = this.functions.get(id)
    if (!fn) return
    this.functions.delete(id)
    // A callback's own failure must not reach the host's connection.
    void (async () => fn(...args))().catch(e => console.error(`callback ${id}:`, e))
  }
}
