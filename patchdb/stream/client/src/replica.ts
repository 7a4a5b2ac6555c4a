import type { Json } from "./json.ts";
import { apply, type Patch } from "./patch.ts";
import { get, parse, type Pointer } from "./pointer.ts";

/** Where to start from. */
export interface Dump {
  readonly id: number;
  readonly value: Json;
}

/** What follows revision after. */
export interface Revision {
  readonly id: number;
  readonly after: number;
  readonly patch: Patch;
}

/** Nothing up to id that was not told. */
export interface Heartbeat {
  readonly id: number;
}

/** What the server says. */
export type Message = { readonly dump: Dump } | { readonly revision: Revision } | { readonly heartbeat: Heartbeat };

/** GapError says that revisions are missing between what is here and what came. */
export class GapError extends Error {
  constructor(at: number | undefined, after: number) {
    super(`revision ${after} is missing: the copy is at ${at ?? "nothing"}`);
    this.name = "GapError";
  }
}

/** Watcher is called with a value, undefined where there is none, and the revision that made it. */
export type Watcher<T> = (value: T | undefined, id: number) => void;

interface Watch {
  readonly pointer: Pointer;
  readonly fn: Watcher<never>;
  last: Json | undefined;
}

/** A copy of the document, kept by messages. It knows nothing of connections. */
export class Replica {
  #id: number | undefined;
  #value: Json | undefined;
  readonly #watches = new Set<Watch>();

  /** The revision of the copy, undefined before the first dump. */
  get id(): number | undefined {
    return this.#id;
  }

  /** The document, undefined before the first dump. */
  get value(): Json | undefined {
    return this.#value;
  }

  /**
   * Takes a message in. Throws GapError, or PatchError, and stays as it is, where a revision does not follow: then the
   * copy is of no further use without a dump.
   */
  take(message: Message): void {
    if ("dump" in message) {
      this.#become(message.dump.id, message.dump.value);
    } else if ("revision" in message) {
      const { id, after, patch } = message.revision;
      if (this.#id === undefined || this.#value === undefined || after !== this.#id || id <= after) {
        throw new GapError(this.#id, after);
      }
      this.#become(id, apply(this.#value, patch));
    } else if ("heartbeat" in message) {
      if (this.#id === undefined || message.heartbeat.id < this.#id) throw new GapError(this.#id, message.heartbeat.id);
      this.#id = message.heartbeat.id;
    }
  }

  /** Calls fn with the value at the pointer, now if there is a copy, and whenever it changes. Returns how to stop. */
  watch<T = Json>(pointer: Pointer, fn: Watcher<T>): () => void {
    parse(pointer); // refuse nonsense here and not later
    const watch: Watch = { pointer, fn: fn as Watcher<never>, last: undefined };
    this.#watches.add(watch);
    if (this.#id !== undefined) {
      watch.last = get(this.#value, pointer);
      fn(watch.last as T | undefined, this.#id);
    }
    return () => {
      this.#watches.delete(watch);
    };
  }

  #become(id: number, value: Json): void {
    const first = this.#id === undefined;
    this.#id = id;
    this.#value = value;
    for (const watch of [...this.#watches]) {
      const now = get(value, watch.pointer);
      // What a patch does not touch is the same object, so this is exact after revisions.
      if ((now === watch.last && !first) || !this.#watches.has(watch)) continue;
      watch.last = now;
      watch.fn(now as never, id);
    }
  }
}
