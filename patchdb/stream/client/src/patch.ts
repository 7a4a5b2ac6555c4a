import { equal, isArray, type Json } from "./json.ts";
import { child, index, parse, type Pointer } from "./pointer.ts";

/** An operation of RFC 6902. */
export type Op =
  | { readonly op: "add" | "replace" | "test"; readonly path: Pointer; readonly value: Json }
  | { readonly op: "remove"; readonly path: Pointer }
  | { readonly op: "move" | "copy"; readonly path: Pointer; readonly from: Pointer };

/** A patch: operations done in order, all or none. */
export type Patch = readonly Op[];

/** PatchError says which operation cannot be done. */
export class PatchError extends Error {
  readonly op: Op;
  constructor(op: Op, reason: string) {
    super(`patch: ${op.op} ${JSON.stringify(op.path)}: ${reason}`);
    this.name = "PatchError";
    this.op = op;
  }
}

/** apply returns the document with the patch applied; what it does not touch is shared with the old one. */
export function apply(document: Json, patch: Patch): Json {
  return patch.reduce(step, document);
}

function step(document: Json, op: Op): Json {
  const path = parse(op.path);
  switch (op.op) {
    case "add":
    case "replace":
    case "remove":
      return edit(document, path, op, op.op, op.op === "remove" ? null : op.value);
    case "test": {
      const found = path.reduce<Json | undefined>(child, document);
      if (found === undefined || !equal(found, op.value)) throw new PatchError(op, "the value is another");
      return document;
    }
    case "copy":
    case "move": {
      const from = parse(op.from);
      const value = from.reduce<Json | undefined>(child, document);
      if (value === undefined) throw new PatchError(op, "nothing at from");
      if (op.op === "copy") return edit(document, path, op, "add", value);
      if (op.path === op.from) return document;
      if (op.path.startsWith(op.from + "/")) throw new PatchError(op, "a value cannot be moved into itself");
      return edit(edit(document, from, op, "remove", null), path, op, "add", value);
    }
    default:
      throw new PatchError(op, "unknown operation");
  }
}

type Verb = "add" | "replace" | "remove";

function edit(node: Json, path: readonly string[], op: Op, verb: Verb, value: Json): Json {
  const [token, ...rest] = path;
  if (token === undefined) return verb === "remove" ? null : value;
  if (typeof node !== "object" || node === null) throw new PatchError(op, "the parent has no members");
  if (isArray(node)) {
    const end = verb === "add" && rest.length === 0;
    const i = end && token === "-" ? node.length : index(token, end ? node.length : node.length - 1);
    if (i === undefined) throw new PatchError(op, "no such element");
    if (rest.length > 0) return node.with(i, edit(node[i]!, rest, op, verb, value));
    if (verb === "replace") return node.with(i, value);
    return verb === "add" ? node.toSpliced(i, 0, value) : node.toSpliced(i, 1);
  }
  const has = Object.hasOwn(node, token);
  if (!has && (rest.length > 0 || verb !== "add")) throw new PatchError(op, "no such member");
  const copy: Record<string, Json> = { ...node };
  if (rest.length === 0 && verb === "remove") {
    delete copy[token];
    return copy;
  }
  // Not an assignment: a member called __proto__ is a member like any other.
  Object.defineProperty(copy, token, {
    value: rest.length > 0 ? edit(node[token]!, rest, op, verb, value) : value,
    configurable: true,
    enumerable: true,
    writable: true,
  });
  return copy;
}
