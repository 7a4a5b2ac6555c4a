import { isArray, type Json } from "./json.ts";

/** A JSON Pointer (RFC 6901): "" is the whole document. */
export type Pointer = string;

/** parse returns the unescaped tokens. */
export function parse(pointer: Pointer): string[] {
  if (pointer === "") return [];
  if (!pointer.startsWith("/") || /~(?![01])/.test(pointer)) throw new SyntaxError(`not a JSON Pointer: ${JSON.stringify(pointer)}`);
  return pointer.slice(1).split("/").map((t) => t.replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** join returns the pointer to what the tokens lead to below base. */
export function join(base: Pointer, ...tokens: (string | number)[]): Pointer {
  return base + tokens.map((t) => "/" + String(t).replaceAll("~", "~0").replaceAll("/", "~1")).join("");
}

/** index reads a token as an index of at most limit, or returns undefined. */
export function index(token: string, limit: number): number | undefined {
  if (!/^(0|[1-9][0-9]*)$/.test(token)) return undefined;
  const i = Number(token);
  return i <= limit ? i : undefined;
}

/** child returns the value one token below, undefined where there is none. */
export function child(value: Json | undefined, token: string): Json | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  if (isArray(value)) {
    const i = index(token, value.length - 1);
    return i === undefined ? undefined : value[i];
  }
  return Object.hasOwn(value, token) ? value[token] : undefined;
}

/** get returns the value at the pointer, undefined where there is none. */
export function get(value: Json | undefined, pointer: Pointer): Json | undefined {
  return parse(pointer).reduce<Json | undefined>(child, value);
}
