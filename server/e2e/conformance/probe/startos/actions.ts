import { FileHelper, z } from '@start9labs/start-sdk'
import { call } from '../../shared/call'
import { callbacks } from './callbacks'
import { rows } from './effects'
import { framing } from './framing'
import { restore } from './init'
import type { Case, Result, Row, World } from './row'
import { run } from './runner'
import { sdk } from './sdk'
import { behaviours } from './behaviours'
import { forms } from './forms'
import { watch, watched } from './watched'

const { InputSpec, Value } = sdk
const PEER = 'conformance-peer'

const suites: Record<string, (Row | Case)[]> = { effects: [...framing, ...rows], callbacks, behaviours }

const report = FileHelper.json({ base: sdk.volumes.main, subpath: 'report.json' }, z.object({ suite: z.string(), total: z.number(), done: z.boolean(), results: z.array(z.any()) }))

const meta = { name: 'Action', description: 'Of the conformance probe', warning: null, allowedStatuses: 'any', group: null, visibility: 'enabled' } as const
const single = (value: unknown) => ({
  version: '1' as const,
  title: 'Done',
  message: null,
  result: { type: 'single' as const, value: JSON.stringify(value) ?? 'null', copyable: false, qr: false, masked: false },
})

async function byPeer(world: World, method: string, params: object = {}) {
  const input = { method, params: JSON.stringify(params) }
  const got: any = await world.effects.action.run({ packageId: PEER, actionId: 'call', input })
  return JSON.parse(got.result.value)
}

/** Starts a suite; what comes out is in `results`. */
const runAction = sdk.Action.withInput(
  'run',
  meta,
  InputSpec.of({ suite: Value.text({ name: 'Suite', required: true, default: 'effects' }) }),
  async () => null,
  async ({ effects, input }) => {
    const list = suites[input.suite]
    if (!list) throw new Error(`there is no suite ${input.suite}`)
    const world: World = { effects, self: 'conformance-probe', peer: PEER, seen: {}, byPeer: (method, params) => byPeer(world, method, params) }
    const results: Result[] = []
    const write = (done: boolean) => report.write(effects, { suite: input.suite, total: list.length, done, results })
    await write(false)
    void run(list, world, async r => {
      results.push(r)
      await write(false)
    })
      .then(() => restore(effects.child('restore')))
      .catch(e => results.push({ name: 'the suite itself', error: String(e?.stack ?? e), ms: 0 }))
      .then(() => write(true))
    return single(list.length)
  },
)

const results = sdk.Action.withoutInput('results', meta, async () => single(await report.read().once()))

/** Any effect, for the test outside. */
const callAction = sdk.Action.withInput(
  'call',
  meta,
  InputSpec.of({
    method: Value.text({ name: 'Method', required: true, default: null }),
    params: Value.text({ name: 'Parameters', required: true, default: '{}' }),
  }),
  async () => null,
  async ({ effects, input }) => single(await call(effects, input.method, JSON.parse(input.params))),
)

const form = sdk.Action.withInput(
  'form',
  meta,
  InputSpec.of({
    text: Value.text({ name: 'Text', required: true, default: 'd' }),
    number: Value.number({ name: 'Number', required: false, default: null, integer: true }),
  }),
  async ({ prefill }) => prefill ?? { text: 'kept' },
  async ({ input }) => ({ version: '1', title: 'Form', message: `${input.text} ${input.number}`, result: null }),
)

const watchAction = sdk.Action.withoutInput('watch', meta, async ({ effects }) => single(await watch(effects)))
const watchedAction = sdk.Action.withoutInput('watched', meta, async () => single(watched))

export const actions = sdk.Actions.of()
  .addAction(runAction)
  .addAction(results)
  .addAction(callAction)
  .addAction(form)
  .addAction(forms)
  .addAction(watchAction)
  .addAction(watchedAction)
