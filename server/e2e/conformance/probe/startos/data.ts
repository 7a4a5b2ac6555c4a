import * as assert from 'node:assert/strict'
import * as fs from 'node:fs/promises'
import { FileHelper, z } from '@start9labs/start-sdk'
import { filled } from './forms'
import { createBackup, restoreInit, versions, journal } from './init'
import { eventually, partly, test, type Case, type World } from './row'
import { sdk } from './sdk'

const shape = z.object({ name: z.string(), n: z.number() })
const base = sdk.volumes.data
const json = FileHelper.json({ base, subpath: 'models/one.json' }, shape)
const run = (w: World, actionId: string, input?: object) => w.effects.action.run({ actionId, ...(input && { input: input as any }) }) as Promise<any>
const configure = { id: 'configure', _INPUT: {} as { name: string; size: number } } as const
const tasks = async (w: World) => (await w.effects.checkDependencies({ packageIds: [w.peer] }))[0]!.tasks

export const data: Case[] = [
  test('file models: written, read, merged, in every format', async w => {
    const value = { name: 'grüße', n: 3 }
    for (const model of [
      json,
      FileHelper.yaml({ base, subpath: 'models/one.yaml' }, shape),
      FileHelper.toml({ base, subpath: 'models/one.toml' }, shape),
    ]) {
      await fs.rm(model.path, { force: true })
      assert.equal(await model.read().once(), null)
      await model.write(w.effects, value)
      assert.deepEqual(await model.read().once(), value)
      await model.merge(w.effects, { n: 4 })
      assert.deepEqual(await model.read().once(), { ...value, n: 4 })
      assert.equal(await model.read(v => v.n).once(), 4)
    }
    // These keep texts only.
    const texts = z.object({ name: z.string(), part: z.object({ n: z.coerce.number() }) })
    const parts = { name: 'grüße', part: { n: 3 } }
    for (const model of [
      FileHelper.ini({ base, subpath: 'models/one.ini' }, texts),
      FileHelper.xml({ base, subpath: 'models/one.xml' }, z.object({ root: texts })),
    ]) {
      const whole: any = model.path.endsWith('.xml') ? { root: parts } : parts
      await fs.rm(model.path, { force: true })
      assert.equal(await model.read().once(), null)
      await model.write(w.effects, whole)
      assert.deepEqual(await model.read().once(), whole)
      await model.merge(w.effects, (whole.root ? { root: { part: { n: 4 } } } : { part: { n: 4 } }) as any)
      partly(await model.read().once(), whole.root ? { root: { name: 'grüße', part: { n: 4 } } } : { name: 'grüße', part: { n: 4 } })
    }
    const text = FileHelper.string({ base, subpath: 'models/one.txt' })
    await text.write(w.effects, 'any text')
    assert.equal(await text.read().once(), 'any text')
    const env = FileHelper.env({ base, subpath: 'models/one.env' }, z.object({ KEY: z.string() }))
    await env.write(w.effects, { KEY: 'v' })
    assert.match(await fs.readFile(env.path, 'utf8'), /^KEY=v/)
  }),
  test('file models: watched, by whoever writes them', async w => {
    const child = w.effects.child('models')
    await json.write(child, { name: 'a', n: 1 })
    const seen: unknown[] = []
    json.read(v => v.n).onChange(child, value => {
      seen.push(value)
      return { cancel: false }
    })
    let again = 0
    child.constRetry = () => again++
    assert.equal(await json.read(v => v.n).const(child), 1)
    const arrived = json.read().waitFor(child, v => v?.n === 3)
    await sdk.SubContainer.withTemp(w.effects, { imageId: 'main' }, sdk.Mounts.of().mountVolume({ volumeId: 'data', subpath: 'models', mountpoint: '/m', readonly: false }), 'models', async sub => {
      await sub.execFail(['sh', '-c', `echo '{"name":"a","n":2}' >/m/new && mv /m/new /m/one.json`])
      await eventually(() => assert.ok(seen.includes(2), JSON.stringify(seen)))
      assert.equal(again, 1, 'constRetry')
      await sub.execFail(['sh', '-c', `echo '{"name":"a","n":3}' >/m/new && mv /m/new /m/one.json`])
    })
    assert.deepEqual(await arrived, { name: 'a', n: 3 })
    w.effects.child('models')
  }),

  test('actions: a form with every kind of value', async w => {
    const input = (await w.effects.action.getInput({ actionId: 'kinds' }))!
    assert.match(input.eventId, /^[A-Z2-7]{32}$/)
    const types = Object.fromEntries(Object.entries(input.spec as Record<string, { type: string }>).map(([k, v]) => [k, v.type]))
    assert.deepEqual(types, {
      text: 'text',
      area: 'textarea',
      number: 'number',
      toggle: 'toggle',
      tri: 'triState',
      colour: 'color',
      date: 'datetime',
      select: 'select',
      multi: 'multiselect',
      list: 'list',
      objects: 'list',
      object: 'object',
      union: 'union',
      hidden: 'hidden',
    })
    assert.deepEqual(input.value, { text: 'kept', number: 3 })
    partly(input.spec.text, { required: true, minLength: 1, maxLength: 10, patterns: [{ regex: '^[a-z]+$', description: 'lower case only' }], generate: { charset: 'a-z', len: 8 } })
  }),
  test('actions: values are checked, results come back whole', async w => {
    const got = await run(w, 'kinds', filled)
    partly(JSON.parse(got.message), filled)
    partly(got, { version: '1', title: 'Kinds', result: { type: 'group' } })
    assert.equal(got.result.value[0].masked, true)
    assert.equal(got.result.value[1].value[0].value, 'w')
    for (const bad of [{ number: 'x' }, { select: 'c' }, { multi: ['z'] }, { union: { selection: 'other', value: {} } }, { object: {} }, { text: null }]) {
      await assert.rejects(run(w, 'kinds', { ...filled, ...bad }), /Action Failed/, JSON.stringify(bad))
    }
  }),
  test("actions: what a package's metadata function reads is watched", async w => {
    // The SDK exports an action again when a const of its metadata changes; here
    // the effect itself: the newest export is what counts.
    const metadata = { name: 'Later', description: '', warning: null, visibility: { disabled: 'now' } as const, allowedStatuses: 'any' as const, hasInput: false, group: null }
    await w.effects.action.export({ id: 'results', metadata })
    await assert.rejects(run(w, 'results'), /disabled: now/)
    await w.effects.action.export({ id: 'results', metadata: { ...metadata, visibility: 'enabled' } })
    await run(w, 'results')
  }),
  test("actions: sdk.action.run fills a form from what it shows", async w => {
    const got = await sdk.action.run<any>({ effects: w.effects, actionId: 'form', input: (prev: any) => ({ ...(prev?.value ?? {}), number: 8 }) })
    partly(got, { message: 'kept 8' })
  }),

  test('tasks: asked of a dependency, done by running its action', async w => {
    await w.effects.action.clearTasks({ except: [] })
    await sdk.action.createTask(w.effects, w.peer, configure, 'important', {
      input: { kind: 'partial', accept: [{ name: 'wanted' }], set: { name: 'wanted' } },
      when: { condition: 'input-not-matches', once: false },
      reason: 'the probe wants it',
    })
    const id = `${w.peer}:configure`
    partly((await tasks(w))[id], { active: true, task: { severity: 'important', reason: 'the probe wants it', input: { kind: 'partial', accept: [{ name: 'wanted' }], set: { name: 'wanted' } } } })
    await w.effects.action.run({ packageId: w.peer, actionId: 'configure', input: { name: 'wanted', size: 2 } })
    partly((await tasks(w))[id], { active: false })
    await w.effects.action.run({ packageId: w.peer, actionId: 'configure', input: { name: 'unwanted', size: 2 } })
    partly((await tasks(w))[id], { active: true })
    await sdk.action.clearTask(w.effects, id)
    assert.deepEqual(await tasks(w), {})
  }),
  test('tasks: one without a condition goes when its action was run', async w => {
    await sdk.action.createTask(w.effects, w.peer, { id: 'for-anyone', _INPUT: {} }, 'optional', { replayId: 'mine' })
    partly((await tasks(w)).mine, { active: true })
    await w.effects.action.run({ packageId: w.peer, actionId: 'for-anyone' })
    assert.equal((await tasks(w)).mine, undefined)
  }),
  test('tasks: of its own, and twice under one name', async w => {
    await sdk.action.createOwnTask(w.effects, { id: 'form', _INPUT: {} as any }, 'important', { reason: 'one' })
    await sdk.action.createOwnTask(w.effects, { id: 'form', _INPUT: {} as any }, 'optional', { reason: 'two' })
    await sdk.action.clearTask(w.effects, `${w.self}:form`)
  }),

  test('dependencies: checked by version, state, health and tasks', async w => {
    const check = async () => sdk.checkDependencies(w.effects, ['conformance-peer'])
    const peer = 'conformance-peer'
    const good = await check()
    good.throwIfNotSatisfied()
    assert.ok(good.satisfied() && good.healthCheckSatisfied(peer, 'page'))
    const declare = (requirement: object) => sdk.setDependencies(w.effects, { dependencies: [{ id: peer, ...requirement } as any] })
    await declare({ kind: 'running', versionRange: '>=3.0.0', healthChecks: [] })
    assert.throws((await check()).throwIfNotSatisfied, /2\.1\.0:3/)
    await declare({ kind: 'exists', versionRange: '=2.1.0:3' })
    assert.ok((await check()).satisfied())
    assert.deepEqual((await w.effects.checkDependencies({}))[0]!.satisfies, ['1.9.0:0'])
    await declare({ kind: 'running', versionRange: '*', healthChecks: ['page', 'other'] })
    assert.ok(!(await check()).satisfied(), 'a health check that it does not have')
    await declare({ kind: 'running', versionRange: '>=2.0.0', healthChecks: ['page'] })
    await sdk.action.createTask(w.effects, w.peer, configure, 'optional')
    assert.ok((await check()).tasksSatisfied(peer), 'a task that is not critical')
    await w.effects.action.clearTasks({ except: [] })
    assert.ok((await check()).satisfied())
  }),
  test("dependencies: another's manifest", async w => {
    partly(await sdk.getServiceManifest(w.effects, w.peer).once(), { id: w.peer, version: '2.1.0:3' })
    assert.ok((await sdk.getInstalledPackages(w.effects)).includes(w.peer))
  }),

  test('watching: once, const, onChange, watch and waitFor', async w => {
    const child = w.effects.child('watching')
    const set = (message: string) => w.byPeer('set-health', { id: 'seen', name: 'Seen', result: 'success', message })
    await set('one')
    const message = () => sdk.getStatus(child, { packageId: w.peer }) as any
    const of = (s: any) => s?.health.seen?.message
    assert.equal(of(await message().once()), 'one')
    let again = 0
    child.constRetry = () => again++
    await message().const()
    const changes: unknown[] = []
    message().onChange((s: any) => {
      changes.push(of(s))
      return { cancel: of(s) === 'three' }
    })
    const values: unknown[] = []
    void (async () => {
      for await (const s of message().watch()) values.push(of(s))
    })().catch(() => {})
    const waited = message().waitFor((s: any) => of(s) === 'three')
    await eventually(() => assert.ok(values.includes('one')))
    await set('two')
    await eventually(() => assert.ok(changes.includes('two') && values.includes('two') && again === 1))
    await set('three')
    assert.equal(of(await waited), 'three')
    await eventually(() => assert.ok(changes.includes('three') && values.includes('three')))
    assert.equal(again, 1, 'const tells once')
    const [told, heard] = [changes.length, values.length]
    w.effects.child('watching')
    await set('four')
    await new Promise(resolve => setTimeout(resolve, 30))
    assert.deepEqual([changes.length, values.length], [told, heard], 'nothing after its context was left')
  }),

  test('versions: up and down, a step at a time', async w => {
    const lines = async () => (await fs.readFile(journal, 'utf8')).split('\n').filter(l => /^(up|down)/.test(l))
    const before = (await lines()).length
    const steps = async () => (await lines()).slice(before)
    const { ExtendedVersion, VersionRange } = await import('@start9labs/start-sdk')
    await versions.uninit(w.effects, ExtendedVersion.parse('0.9.0:0'))
    assert.equal(await w.effects.getDataVersion(), '0.9.0:0')
    assert.deepEqual(await steps(), ['down from 1.0.0:0'])
    await versions.init(w.effects, 'update')
    assert.equal(await w.effects.getDataVersion(), '1.0.0:0')
    await w.effects.setDataVersion({ version: '0.8.0:0' })
    await versions.init(w.effects, 'update')
    assert.deepEqual((await steps()).slice(1), ['up to 1.0.0:0', 'up to 0.9.0:0', 'up to 1.0.0:0'])
    await versions.uninit(w.effects, VersionRange.parse('>=0.9.0:0 <1.0.0:0'))
    assert.equal(await w.effects.getDataVersion(), '0.9.0:0')
    await versions.init(w.effects, 'update')
    await assert.rejects(versions.uninit(w.effects, ExtendedVersion.parse('0.1.0:0')), /migrate/)
    await w.effects.setDataVersion({ version: '5.0.0:0' })
    await assert.rejects(versions.init(w.effects, 'update'), /migrate/)
    await w.effects.setDataVersion({ version: null })
    await versions.init(w.effects, 'install')
    assert.equal(await w.effects.getDataVersion(), '1.0.0:0')
    assert.equal((await sdk.getDataVersion(w.effects))?.toString(), '1.0.0:0')
  }),

  test('backup: made from the volumes, and put back', async w => {
    await fs.rm('/media/startos/backup', { recursive: true, force: true })
    await fs.mkdir('/media/startos/backup', { recursive: true })
    await sdk.volumes.data.writeFile('saved.txt', 'before')
    await createBackup({ effects: w.effects })
    assert.equal(await fs.readFile('/media/startos/backup/volumes/data/saved.txt', 'utf8'), 'before')
    assert.equal((await fs.readFile('/media/startos/backup/dataVersion.txt', 'utf8')).trim(), '1.0.0:0')
    await sdk.volumes.data.writeFile('saved.txt', 'after')
    await restoreInit.init(w.effects, null)
    assert.equal(await sdk.volumes.data.readFile('saved.txt', 'utf8'), 'after', 'only a restore restores')
    await w.effects.setDataVersion({ version: null })
    await restoreInit.init(w.effects, 'restore')
    assert.equal(await sdk.volumes.data.readFile('saved.txt', 'utf8'), 'before')
    assert.equal(await w.effects.getDataVersion(), '1.0.0:0')
    const text = await fs.readFile(journal, 'utf8')
    assert.match(text, /before the backup\n(.*\n)*after the restore/)
  }),

  test('notifications: with and without a text', async w => {
    await sdk.notification.create(w.effects, { level: 'info', title: 'From the SDK', message: 'short' })
    await sdk.notification.create(w.effects, { level: 'warning', title: 'From the SDK', message: 'long', data: '# Long' })
  }),
  test('language: the locale of the server', async () => assert.match(process.env.LANG ?? '', /\.UTF-8$/)),
  test('runtime: a forgotten promise that fails takes nothing down', async () => {
    void Promise.reject(new Error('forgotten on purpose'))
    await new Promise(resolve => setTimeout(resolve, 20))
  }),
]
