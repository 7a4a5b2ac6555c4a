import assert from "node:assert/strict";
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { createInterface } from "node:readline";
import { test } from "node:test";

import { connect, type Connection, type Json } from "../src/index.ts";

/** until resolves when a watched value satisfies the test. */
function until(live: Connection, pointer: string, wanted: (v: Json | undefined) => boolean): Promise<void> {
  return new Promise((resolve) => {
    const stop = live.watch(pointer, (v) => {
      if (!wanted(v)) return;
      queueMicrotask(() => stop());
      resolve();
    });
  });
}

type Answer = (request: URL, response: ServerResponse) => void;

/** serve answers each connection in turn by one of the answers. */
async function serve(answers: Answer[], fn: (url: string) => Promise<void>): Promise<void> {
  const server = createServer((request: IncomingMessage, response: ServerResponse) => {
    const answer = answers.shift();
    if (!answer) return void response.destroy();
    answer(new URL(request.url ?? "", "http://x"), response);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await fn(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const say = (response: ServerResponse, kind: string, body: { id: number }) =>
  response.write(`event: ${kind}\nid: ${body.id}\ndata: ${JSON.stringify(body)}\n\n`);

test("a lost connection is resumed, a gap starts again from a dump", async () => {
  const asked: (string | null)[] = [];
  const errors: string[] = [];
  await serve([
    (url, response) => {
      asked.push(url.searchParams.get("since"));
      say(response, "dump", { id: 1, value: { n: 1 } } as { id: number });
      say(response, "revision", { id: 2, after: 1, patch: [{ op: "replace", path: "/n", value: 2 }] } as { id: number });
      response.end();
    },
    (url, response) => {
      asked.push(url.searchParams.get("since"));
      say(response, "revision", { id: 9, after: 8, patch: [{ op: "replace", path: "/n", value: 9 }] } as { id: number });
    },
    (url, response) => {
      asked.push(url.searchParams.get("since"));
      say(response, "dump", { id: 9, value: { n: 9 } } as { id: number });
    },
  ], async (url) => {
    const live = connect<{ n: number }>(url, { pointer: "/a b", onError: (e) => errors.push(String(e)) });
    try {
      assert.deepEqual(await live.ready, { n: 1 });
      await until(live as unknown as Connection, "/n", (n) => n === 9);
      assert.deepEqual(asked, [null, "2", null]);
      assert.match(errors.join(), /GapError: revision 8 is missing: the copy is at 2/);
      assert.equal(live.id, 9);
    } finally {
      live.close();
    }
  });
});

test("a server that falls silent is left", async () => {
  const errors: string[] = [];
  await serve([
    (_, response) => void say(response, "dump", { id: 1, value: 1 } as { id: number }),
    (_, response) => void say(response, "dump", { id: 2, value: 2 } as { id: number }),
  ], async (url) => {
    const live = connect(url, { silence: 100, onError: (e) => errors.push(String(e)) });
    try {
      await until(live, "", (v) => v === 2);
      assert.match(errors.join(), /silent/);
    } finally {
      live.close();
    }
  });
});

test("a refusal is told", async () => {
  await serve([(_, response) => void response.writeHead(403).end("no\n")], async (url) => {
    const error = await new Promise((resolve) => {
      const live = connect(url, { onError: (e) => { live.close(); resolve(e); } });
    });
    assert.match(String(error), /403: no/);
  });
});

const goes = spawnSync("go", ["version"]).status === 0;
const transports = typeof WebSocket === "undefined" ? ["events"] as const : ["events", "websocket"] as const;

for (const transport of transports) {
  test(`against the Go handler, over ${transport}`, { skip: !goes && !process.env["CI"] && "there is no go command" }, async () => {
    const server: ChildProcess = spawn("go", ["run", new URL("../../test/server", import.meta.url).pathname], {
      cwd: new URL("../..", import.meta.url).pathname, stdio: ["pipe", "pipe", "inherit"],
    });
    const lines = createInterface({ input: server.stdout! })[Symbol.asyncIterator]();
    let live: Connection | undefined;
    try {
      const url = (await lines.next()).value as string;
      live = connect(url, { pointer: "/state", transport });
      assert.deepEqual(await live.ready, null);
      let sum = 0;
      for (let i = 1; i <= 200; i++) {
        // Each line is a value that the server puts at a pointer of its choice below /state.
        server.stdin!.write(`${i}\n`);
        sum += i;
      }
      await until(live, "/last", (v) => v === 200);
      const list = (live.value as { list: number[] }).list;
      assert.equal(list.length, 20);
      assert.equal((live.value as { sum: number }).sum, sum);
    } finally {
      live?.close();
      server.stdin!.end();
      await new Promise((resolve) => server.once("exit", resolve));
    }
  });
}
