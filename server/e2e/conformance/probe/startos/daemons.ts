import * as assert from 'node:assert/strict'
import * as fs from 'node:fs/promises'
import { sdk } from './sdk'
import { counter } from './init'
import { eventually, partly, test, type Case, type World } from './row'

const image = { imageId: 'main' } as const
const quick = sdk.trigger.cooldownTrigger(50)
const sub = (w: World, name: string, mounts = sdk.Mounts.of().mountVolume({ volumeId: 'data', subpath: 'daemons', mountpoint: '/d', readonly: false })) =>
  sdk.SubContainer.of(w.effects, image, mounts, name)
const success = (message: string | null = null) => ({ result: 'success' as const, message })
const file = (name: string) => sdk.volumes.data.subpath(`daemons/${name}`)
const read = (name: string) => fs.readFile(file(name), 'utf8').catch(() => '')
const health = async (w: World, id: string) => (await w.effects.getStatus({}))?.health[id]
const fresh = async () => {
  await fs.rm(file(''), { recursive: true, force: true })
  await fs.mkdir(file(''), { recursive: true })
}
/** Health checks of a case are gone from the status when the next one looks. */
const clean = (w: World, ...ids: string[]) => Promise.all(ids.map(id => w.effects.setHealth({ id, name: id, result: 'success', message: null })))

export const daemons: Case[] = [
  test('daemons: one starts when what it requires is ready', async w => {
    await fresh()
    let open = false
    const chain = await sdk.Daemons.of(w.effects)
      .addDaemon('first', {
        subcontainer: sub(w, 'first'),
        exec: { command: ['sh', '-c', 'echo first >>/d/order; exec sleep 1000'] },
        ready: { display: 'First', fn: () => (open ? success('open') : { result: 'failure', message: 'shut' }), trigger: quick },
        requires: [],
      })
      .addDaemon('second', {
        subcontainer: sub(w, 'second'),
        exec: { command: ['sh', '-c', 'echo second >>/d/order; exec sleep 1000'] },
        ready: { display: 'Second', fn: () => success(), trigger: quick },
        requires: ['first'],
      })
      .build()
    await eventually(async () => assert.equal(await read('order'), 'first\n'))
    // Within its grace period a failing check says that it is starting.
    await eventually(async () => partly(await health(w, 'first'), { name: 'First', result: 'starting', message: 'shut' }))
    partly(await health(w, 'second'), { result: 'waiting', message: 'First' })
    open = true
    await eventually(async () => assert.equal(await read('order'), 'first\nsecond\n'))
    await eventually(async () => partly(await health(w, 'second'), { result: 'success' }))
    partly(await health(w, 'first'), { result: 'success', message: 'open' })
    await chain.term()
    await clean(w, 'first', 'second')
  }),
  test('daemons: after its grace period a failing check fails; one without display is not shown', async w => {
    await fresh()
    const chain = await sdk.Daemons.of(w.effects)
      .addHealthCheck('failing', { ready: { display: 'Failing', fn: () => ({ result: 'failure', message: 'no' }), gracePeriod: 0, trigger: quick }, requires: [] })
      .addHealthCheck('unseen', { ready: { display: null, fn: () => success(), trigger: quick }, requires: [] })
      .addHealthCheck('throwing', {
        ready: {
          display: 'Throwing',
          fn: () => {
            throw new Error('thrown')
          },
          gracePeriod: 0,
          trigger: quick,
        },
        requires: ['unseen'],
      })
      .build()
    await eventually(async () => partly(await health(w, 'failing'), { result: 'failure', message: 'no' }))
    assert.equal(await health(w, 'unseen'), undefined)
    await chain.term()
    await clean(w, 'failing', 'throwing')
  }),
  test('daemons: a oneshot is tried again until it succeeds, and what waits for it starts then', async w => {
    await fresh()
    await sdk.Daemons.of(w.effects)
      .addOneshot('prepare', {
        subcontainer: sub(w, 'prepare'),
        exec: { command: ['sh', '-c', 'echo try >>/d/tries; test $(wc -l </d/tries) -ge 3'] },
        requires: [],
      })
      .addOneshot('after', { subcontainer: sub(w, 'after'), exec: { command: 'cat /d/tries >/d/after' as any }, requires: ['prepare'] })
      .runUntilSuccess(30_000)
    assert.equal(await read('tries'), 'try\ntry\ntry\n')
    assert.equal(await read('after'), 'try\ntry\ntry\n', 'a command that is a text runs in a shell')
  }),
  test('daemons: what does not succeed in time is ended and said so', async w => {
    await fresh()
    await assert.rejects(
      sdk.Daemons.of(w.effects)
        .addOneshot('never', { subcontainer: sub(w, 'never'), exec: { command: ['sh', '-c', 'echo $$ >/d/never; exec sleep 1000'] }, requires: [] })
        .runUntilSuccess(500),
      /Timed out waiting for never/,
    )
  }),
  test('daemons: one that ends is started again', async w => {
    await fresh()
    const chain = await sdk.Daemons.of(w.effects)
      .addDaemon('crashing', {
        subcontainer: sub(w, 'crashing'),
        exec: { command: ['sh', '-c', 'echo run >>/d/runs; exit 3'] },
        ready: { display: null, fn: () => success(), trigger: quick },
        requires: [],
      })
      .build()
    await eventually(async () => assert.ok((await read('runs')).length >= 12))
    await chain.term()
  }),
  test('daemons: they are ended in reverse order, by TERM', async w => {
    await fresh()
    const one = (name: string) => ({
      subcontainer: sub(w, name),
      exec: { command: ['sh', '-c', `trap 'echo ${name} >>/d/ended; exit 0' TERM; echo >/d/${name}; while :; do sleep 0.05; done`] as [string, ...string[]] },
      ready: { display: null, fn: async () => ((await read(name)) ? success() : { result: 'starting' as const, message: null }), trigger: quick },
    })
    const chain = await sdk.Daemons.of(w.effects)
      .addDaemon('base', { ...one('base'), requires: [] })
      .addDaemon('top', { ...one('top'), requires: ['base'] })
      .build()
    await eventually(async () => assert.ok(await read('top')))
    await chain.term()
    assert.equal(await read('ended'), 'top\nbase\n')
  }),
  test('daemons: who does not heed TERM is killed', async w => {
    await fresh()
    const chain = await sdk.Daemons.of(w.effects)
      .addDaemon('deaf', {
        subcontainer: sub(w, 'deaf'),
        exec: { command: ['sh', '-c', "trap '' TERM; echo >/d/deaf; while :; do sleep 0.05; done"], sigtermTimeout: 300 },
        ready: { display: null, fn: () => success(), trigger: quick },
        requires: [],
      })
      .build()
    await eventually(async () => assert.ok(await read('deaf')))
    const since = Date.now()
    await chain.term()
    assert.ok(Date.now() - since < 25_000)
  }),
  test("daemons: the image's own entrypoint, with its command or another", async w => {
    await fresh()
    const output = async (...command: string[]) => {
      let text = ''
      await sdk.Daemons.of(w.effects)
        .addOneshot('entry', {
          subcontainer: sub(w, 'entry'),
          exec: { command: sdk.useEntrypoint(command.length ? (command as [string, ...string[]]) : undefined), onStdout: chunk => (text += chunk) },
          requires: [],
        })
        .runUntilSuccess(20_000)
      return text
    }
    assert.match(await output(), /entered\nby default\n/)
    assert.match(await output('echo', 'another'), /entered\nanother\n/)
  }),
  test('daemons: runAsInit makes the command process 1', async w => {
    await fresh()
    const chain = await sdk.Daemons.of(w.effects)
      .addDaemon('init', {
        subcontainer: sub(w, 'init'),
        exec: { command: ['sh', '-c', "trap 'exit 0' TERM; echo $$ >/d/pid; while :; do sleep 0.05; done"], runAsInit: true },
        ready: { display: null, fn: () => success(), trigger: quick },
        requires: [],
      })
      .build()
    await eventually(async () => assert.equal(await read('pid'), '1\n'))
    await chain.term()
  }),
  test('daemons: a function instead of a process', async w => {
    let ended = false
    const chain = await sdk.Daemons.of(w.effects)
      .addDaemon('fn', {
        subcontainer: null,
        exec: {
          fn: (_, abort) =>
            new Promise(resolve =>
              abort.addEventListener('abort', () => {
                ended = true
                resolve(null)
              }),
            ),
        },
        ready: { display: null, fn: () => success(), trigger: quick },
        requires: [],
      })
      .build()
    await chain.term()
    assert.ok(ended)
  }),
  test('daemons: what is required comes and goes, and what requires it with it, in the same place', async w => {
    await fresh()
    let up = true
    const chain = await sdk.Daemons.of(w.effects)
      .addHealthCheck('flapping', { ready: { display: null, fn: () => (up ? success() : { result: 'failure', message: 'away' }), trigger: quick }, requires: [] })
      .addDaemon('following', {
        subcontainer: sub(w, 'following'),
        exec: { command: ['sh', '-c', "trap 'echo down >>/d/flaps; exit 0' TERM; test -e /tmp/mark && echo again >>/d/flaps; touch /tmp/mark; echo up >>/d/flaps; while :; do sleep 0.05; done"] },
        ready: { display: null, fn: () => success(), trigger: quick },
        requires: ['flapping'],
      })
      .build()
    await eventually(async () => assert.equal(await read('flaps'), 'up\n'))
    up = false
    await eventually(async () => assert.equal(await read('flaps'), 'up\ndown\n'))
    up = true
    await eventually(async () => assert.equal(await read('flaps'), 'up\ndown\nagain\nup\n'))
    await chain.term()
  }),
  test('daemons: leaving their context ends them', async w => {
    await fresh()
    const child = w.effects.child('leaving')
    await sdk.Daemons.of(child)
      .addDaemon('left', {
        subcontainer: sdk.SubContainer.of(child, image, sdk.Mounts.of().mountVolume({ volumeId: 'data', subpath: 'daemons', mountpoint: '/d', readonly: false }), 'left'),
        exec: { command: ['sh', '-c', "trap 'echo left >/d/left; exit 0' TERM; echo >/d/up; while :; do sleep 0.05; done"] },
        ready: { display: null, fn: () => success(), trigger: quick },
        requires: [],
      })
      .build()
    await eventually(async () => assert.ok(await read('up')))
    w.effects.child('leaving')
    await eventually(async () => assert.equal(await read('left'), 'left\n'))
  }),
  test('daemons: a dynamic set follows a file and touches only what changed', async w => {
    const pid = () => sdk.volumes.data.readFile('web.pid', 'utf8')
    const before = await pid()
    const n = Date.now() % 1_000_000
    await counter.write(w.effects, { n })
    await eventually(async () => assert.ok(String(await sdk.volumes.data.readFile('counted.txt', 'utf8')).endsWith(`${n}\n`)))
    assert.equal(await pid(), before, 'the other daemon goes on')
    partly(await w.effects.getStatus({}), { desired: { main: 'running' } })
  }),
  test('health checks: a port, a page, a script', async w => {
    const messages = { successMessage: 'yes', errorMessage: 'no' }
    partly(await sdk.healthCheck.checkPortListening(w.effects, 8080, messages), { result: 'success', message: 'yes' })
    partly(await sdk.healthCheck.checkPortListening(w.effects, 8099, messages), { result: 'failure', message: 'no' })
    partly(await sdk.healthCheck.checkWebUrl(w.effects, 'http://127.0.0.1:8080/kept.txt', messages), { result: 'success', message: 'yes' })
    partly(await sdk.healthCheck.checkWebUrl(w.effects, 'http://127.0.0.1:8099/', messages), { result: 'failure' })
    await sdk.SubContainer.withTemp(w.effects, image, null, 'script', async s => {
      partly(await sdk.healthCheck.runHealthScript(['true'], s), { result: 'success' })
      await assert.rejects(async () => {
        const got = await sdk.healthCheck.runHealthScript(['sh', '-c', 'exit 4'], s)
        if (got.result !== 'success') throw new Error(got.message ?? 'failed')
      })
    })
  }),
]
