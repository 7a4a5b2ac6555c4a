export { connect, type Connection, type ConnectOptions } from "./connection.ts";
export { apply, type Op, type Patch, PatchError } from "./patch.ts";
export { get, join, type Pointer, parse as parsePointer } from "./pointer.ts";
export { type Dump, GapError, type Heartbeat, type Message, Replica, type Revision, type Watcher } from "./replica.ts";
export type { Json } from "./json.ts";
