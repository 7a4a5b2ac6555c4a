import assert from "node:assert/strict";
import { test } from "node:test";

import { GapError, type Json, PatchError, Replica } from "../src/index.ts";

test("a copy follows dump and revisions", () => {
  const r = new Replica();
  assert.throws(() => r.take({ revision: { id: 1, after: 0, patch: [] } }), GapError);
  r.take({ dump: { id: 3, value: { a: 1 } } });
  r.take({ revision: { id: 5, after: 3, patch: [{ op: "replace", path: "/a", value: 2 }] } });
  assert.deepEqual([r.id, r.value], [5, { a: 2 }]);
  r.take({ heartbeat: { id: 9 } });
  r.take({ revision: { id: 10, after: 9, patch: [{ op: "add", path: "/b", value: 1 }] } });
  assert.deepEqual([r.id, r.value], [10, { a: 2, b: 1 }]);
});

test("a gap is refused, and so is the past", () => {
  const r = new Replica();
  r.take({ dump: { id: 3, value: { a: 1 } } });
  const patch = [{ op: "replace", path: "/a", value: 2 }] as const;
  for (const [id, after] of [[5, 4], [3, 2], [4, 2], [3, 3]] as const) {
    assert.throws(() => r.take({ revision: { id, after, patch } }), GapError);
  }
  assert.throws(() => r.take({ heartbeat: { id: 2 } }), GapError);
  assert.throws(() => r.take({ revision: { id: 4, after: 3, patch: [{ op: "remove", path: "/none" }] } }), PatchError);
  assert.deepEqual([r.id, r.value], [3, { a: 1 }]);
  r.take({ dump: { id: 8, value: null } });
  assert.deepEqual([r.id, r.value], [8, null]);
});

test("watchers hear what concerns them", () => {
  const r = new Replica();
  const heard: [string, Json | undefined, number][] = [];
  r.watch("/a", (v, id) => heard.push(["a", v, id]));
  assert.equal(heard.length, 0);
  r.take({ dump: { id: 1, value: { a: { x: 1 }, b: 2 } } });
  const stop = r.watch("/b", (v, id) => heard.push(["b", v, id]));
  r.take({ revision: { id: 2, after: 1, patch: [{ op: "replace", path: "/b", value: 3 }] } });
  r.take({ revision: { id: 3, after: 2, patch: [{ op: "remove", path: "/a" }] } });
  stop();
  r.take({ revision: { id: 4, after: 3, patch: [{ op: "replace", path: "/b", value: 4 }, { op: "add", path: "/a", value: 0 }] } });
  assert.deepEqual(heard, [["a", { x: 1 }, 1], ["b", 2, 1], ["b", 3, 2], ["a", undefined, 3], ["a", 0, 4]]);
  assert.throws(() => r.watch("nonsense", () => {}), SyntaxError);
});
