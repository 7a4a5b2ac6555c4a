import type { Json } from "./json.ts";
import type { Pointer } from "./pointer.ts";
import { type Message, Replica, type Watcher } from "./replica.ts";

/** How to connect. All is optional. */
export interface ConnectOptions {
  /** The place to keep a copy of; the whole document if left out. Watched pointers are relative to it. */
  pointer?: Pointer;
  /** "events" (the default) is server-sent events over fetch; "websocket" is a WebSocket. */
  transport?: "events" | "websocket";
  /** Sent with each request of "events". */
  headers?: Record<string, string>;
  /** Milliseconds of silence after which a connection counts as lost; three heartbeats of the server. */
  silence?: number;
  /** Instead of JSON.parse, for documents with numbers that JavaScript would round. */
  parse?: (text: string) => unknown;
  /** Instead of the global ones. */
  fetch?: typeof fetch;
  WebSocket?: typeof WebSocket;
  /** Told of each lost or refused connection; the client connects again by itself. */
  onError?: (error: unknown) => void;
}

/** A copy that is kept up to date. */
export interface Connection<T = Json> {
  /** Resolves with the first value. */
  readonly ready: Promise<T>;
  /** The copy; undefined before the first dump. */
  readonly value: T | undefined;
  /** Its revision. */
  readonly id: number | undefined;
  /** Calls fn with the value at the pointer, and whenever it changes. Returns how to stop. */
  watch<V = Json>(pointer: Pointer, fn: Watcher<V>): () => void;
  /** Ends the connection for good. The copy stays as it is. */
  close(): void;
}

const firstPause = 500;
const longestPause = 30_000;

/** connect keeps a copy of the document behind the URL of a stream handler. */
export function connect<T = Json>(url: string | URL, options: ConnectOptions = {}): Connection<T> {
  const live = new Live(url, options);
  void live.run();
  return live as unknown as Connection<T>;
}

class Live {
  readonly ready: Promise<Json>;
  readonly #url: URL;
  readonly #o: ConnectOptions;
  readonly #replica = new Replica();
  readonly #end = new AbortController();
  #fresh = false; // the copy does not follow any more: ask for a dump

  constructor(url: string | URL, o: ConnectOptions) {
    this.#url = new URL(url, globalThis.location?.href);
    if (o.pointer) this.#url.searchParams.set("pointer", o.pointer);
    this.#o = o;
    this.ready = new Promise((resolve) => {
      const stop = this.#replica.watch("", (value) => {
        queueMicrotask(() => stop());
        resolve(value as Json);
      });
    });
  }

  get value(): Json | undefined {
    return this.#replica.value;
  }

  get id(): number | undefined {
    return this.#replica.id;
  }

  watch<V>(pointer: Pointer, fn: Watcher<V>): () => void {
    return this.#replica.watch(pointer, fn);
  }

  close(): void {
    this.#end.abort();
  }

  async run(): Promise<void> {
    let pause = firstPause;
    while (!this.#end.signal.aborted) {
      try {
        await this.#once(() => {
          pause = firstPause;
        });
      } catch (error) {
        if (this.#end.signal.aborted) return;
        this.#o.onError?.(error);
      }
      // A little chance in the pause keeps many clients from coming at once.
      await sleep(pause * (0.75 + Math.random() / 2), this.#end.signal);
      pause = Math.min(pause * 2, longestPause);
    }
  }

  /** once is one connection, until it ends. */
  async #once(alive: () => void): Promise<void> {
    const url = new URL(this.#url);
    if (this.#replica.id !== undefined && !this.#fresh) url.searchParams.set("since", String(this.#replica.id));
    const stop = new AbortController();
    const end = () => stop.abort(this.#end.signal.reason);
    this.#end.signal.addEventListener("abort", end);
    let timer: ReturnType<typeof setTimeout> | undefined;
    const listen = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(new Error("the server fell silent")), this.#o.silence ?? 45_000);
    };
    const take = (message: Message) => {
      listen();
      try {
        this.#replica.take(message);
      } catch (error) {
        this.#fresh = true;
        throw error;
      }
      if ("dump" in message) this.#fresh = false;
      alive();
    };
    listen();
    try {
      const parse = (text: string) => (this.#o.parse ?? JSON.parse)(text);
      if (this.#o.transport === "websocket") await this.#socket(url, parse, take, stop.signal);
      else await this.#events(url, parse, take, stop.signal);
    } finally {
      clearTimeout(timer);
      stop.abort();
      this.#end.signal.removeEventListener("abort", end);
    }
  }

  async #events(url: URL, parse: (text: string) => unknown, take: (m: Message) => void, signal: AbortSignal): Promise<void> {
    const response = await (this.#o.fetch ?? fetch)(url, {
      headers: { ...this.#o.headers, accept: "text/event-stream" },
      cache: "no-store",
      signal,
    });
    if (!response.ok || !response.body) throw new Error(`the server answered ${response.status}: ${(await response.text()).trim()}`);
    let text = "";
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const event = text.slice(0, end);
        text = text.slice(end + 2);
        const field = (name: string) =>
          event.split("\n").find((line) => line.startsWith(name + ": "))?.slice(name.length + 2);
        const kind = field("event");
        const data = field("data");
        if (kind !== undefined && data !== undefined) take({ [kind]: parse(data) } as unknown as Message);
      }
    }
  }

  #socket(url: URL, parse: (text: string) => unknown, take: (m: Message) => void, signal: AbortSignal): Promise<void> {
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new (this.#o.WebSocket ?? WebSocket)(url);
    return new Promise((resolve, reject) => {
      const fail = (error: unknown) => {
        reject(error);
        socket.close();
      };
      if (signal.aborted) fail(signal.reason);
      signal.addEventListener("abort", () => fail(signal.reason));
      socket.onmessage = (event) => {
        try {
          take(parse(String(event.data)) as Message);
        } catch (error) {
          fail(error);
        }
      };
      socket.onerror = () => reject(new Error("the WebSocket failed"));
      socket.onclose = () => resolve();
    });
  }
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    }, { once: true });
  });
}
