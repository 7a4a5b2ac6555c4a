import { Daemons, T } from '@start9labs/start-sdk'
import { readiness } from './checks'
import { description, Mount, Process } from './description'
import { sdk } from './sdk'
import { watchedSettings, writeFiles } from './settings'
import { fill, fillAll, fillEnv, Scope } from './template'

export function mounts(list: Mount[]) {
  let m = sdk.Mounts.of()
  for (const { volume, assets, dependency, path, at, readonly, file } of list) {
    const shared = { subpath: path, mountpoint: at, type: file ? ('file' as const) : ('infer' as const) }
    if (dependency !== null) m = m.mountDependency({ ...shared, dependencyId: dependency, volumeId: volume ?? 'main', readonly })
    else if (assets) m = m.mountAssets(shared)
    else m = m.mountVolume({ ...shared, volumeId: volume ?? 'main', readonly })
  }
  return m
}

function exec(p: Process, scope: Scope) {
  const command: T.CommandType =
    p.command === null
      ? sdk.useEntrypoint(p.args === null ? undefined : fillAll(p.args, scope))
      : typeof p.command === 'string'
        ? ['sh', '-c', fill(p.command, scope)]
        : (fillAll(p.command, scope) as [string, ...string[]])
  return {
    command,
    env: fillEnv(p.env, scope),
    sigtermTimeout: p.stopTimeout,
    runAsInit: p.init,
    ...(p.user === null ? {} : { user: p.user }),
    ...(p.workdir === null ? {} : { cwd: p.workdir }),
  }
}

/** The SDK's builder without the ids in its type, which are not known here. */
type Chain = {
  addDaemon(id: string, options: object): Chain
  addOneshot(id: string, options: object): Chain
  addHealthCheck(id: string, options: object): Chain
}

export const main = sdk.setupMain(async ({ effects }) => {
  const scope = { config: await watchedSettings(effects) }
  await writeFiles(scope)
  const subs = new Map(
    description.processes.map(p => [p.id, sdk.SubContainer.of(effects, { imageId: p.image }, mounts(p.mounts), p.id)]),
  )
  let daemons = sdk.Daemons.of(effects) as unknown as Chain
  for (const p of description.processes) {
    const subcontainer = subs.get(p.id)!
    const common = { subcontainer, exec: exec(p, scope), requires: p.requires }
    if (p.oneshot) daemons = daemons.addOneshot(p.id, common)
    else {
      const ready = p.ready
        ? { display: p.ready.name, ...readiness(effects, p.ready, subcontainer) }
        : { display: null, fn: () => ({ result: 'success' as const, message: null }) }
      daemons = daemons.addDaemon(p.id, { ...common, ready })
    }
  }
  for (const check of description.health) {
    daemons = daemons.addHealthCheck(check.id, {
      ready: { display: check.name, ...readiness(effects, check, subs.get(check.process)!) },
      requires: check.requires,
    })
  }
  return daemons as unknown as Daemons<T.SDKManifest, string>
})
