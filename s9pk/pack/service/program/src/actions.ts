import { T } from '@start9labs/start-sdk'
import { lastLine } from './checks'
import { Action, description } from './description'
import { inputSpec } from './form'
import { mounts } from './processes'
import { sdk } from './sdk'
import { settings, settingsFile } from './settings'
import { fill, fillAll, fillEnv } from './template'

type Result = T.ActionResult & { version: '1' }
type Member = T.ActionResultMember

/** The id of the action that is the form of the settings. */
export const configure = 'config'

async function run(effects: T.Effects, a: Action, input: unknown): Promise<Result> {
  const scope = { config: await settings(), input }
  const command = typeof a.command === 'string' ? ['sh', '-c', fill(a.command, scope)] : fillAll(a.command, scope)
  const { exitCode, exitSignal, stdout, stderr } = await sdk.SubContainer.withTemp(effects, { imageId: a.image }, mounts(a.mounts), a.id, sub =>
    sub.exec(
      command,
      {
        env: fillEnv(a.env, scope),
        ...(a.user === null ? {} : { user: a.user }),
        ...(a.workdir === null ? {} : { cwd: a.workdir }),
        input: a.stdin === null ? '' : fill(a.stdin, scope),
      },
      a.timeout,
    ),
  )
  if (exitCode !== 0) {
    const why = lastLine(stderr) ?? lastLine(stdout)
    throw new Error(why ?? (exitSignal ? `${a.name}: took too long` : `${a.name}: failed with status ${exitCode}`))
  }
  if (a.restart) await effects.restart()
  return result(a, stdout.toString(), a.result.message === null ? null : fill(a.result.message, scope))
}

function result(a: Action, out: string, message: string | null): Result {
  const { kind, title, ...shown } = a.result
  const look = { copyable: shown.copyable, qr: shown.qr, masked: shown.masked }
  if (kind === 'none') return { version: '1', title, message, result: null }
  if (kind === 'text') return { version: '1', title, message, result: { type: 'single', value: out.replace(/\n$/, ''), ...look } }
  let value: unknown
  try {
    value = JSON.parse(out)
  } catch {
    throw new Error(`${a.name}: what it printed is not JSON`)
  }
  if (value === null || typeof value !== 'object') return { version: '1', title, message, result: { type: 'single', value: plain(value), ...look } }
  const member = (name: string, value: unknown): Member =>
    value !== null && typeof value === 'object'
      ? { type: 'group', name, description: null, value: Object.entries(value).map(([k, v]) => member(k, v)) }
      : { type: 'single', name, description: null, value: plain(value), ...look }
  return { version: '1', title, message, result: { type: 'group', value: Object.entries(value).map(([k, v]) => member(Array.isArray(value) ? String(Number(k) + 1) : k, v)) } }
}

const plain = (value: unknown) => (value === null || value === undefined ? '' : String(value))

const build = (a: Action) => {
  const about = {
    name: a.name, description: a.description, warning: a.warning, group: a.group, allowedStatuses: a.when,
    visibility: a.hidden ? ('hidden' as const) : ('enabled' as const), access: a.access,
  }
  if (a.form.length === 0) return sdk.Action.withoutInput(a.id, about, ({ effects }) => run(effects, a, {}))
  return sdk.Action.withInput(a.id, about, inputSpec(a.form), async () => null, ({ effects, input }) => run(effects, a, input))
}

function settingsAction() {
  const config = description.config!
  return sdk.Action.withInput(
    configure,
    { name: config.name, description: config.description, warning: null, group: null, allowedStatuses: 'any', visibility: 'enabled' },
    inputSpec(config.form),
    async () => (await settings()) as never,
    async ({ effects, input }) => {
      await settingsFile!.write(effects, { ...(await settings()), ...(input as object) }) // a running service starts again
    },
  )
}

export const built = new Map(
  [...(description.config ? [settingsAction()] : []), ...description.actions.map(build)].map(a => [a.id as string, a]),
)

export const actions = [...built.values()].reduce((all, a) => all.addAction(a) as typeof all, sdk.Actions.of())
