import { actions, built } from './actions'
import { description as d } from './description'
import { setInterfaces } from './interfaces'
import { sdk, versionGraph } from './sdk'
import { completeSettings } from './settings'

export const { createBackup, restoreInit } = sdk.setupBackups(async () => {
  const backups = sdk.Backups.ofVolumes(...d.backup.volumes)
  return d.backup.exclude.length > 0 ? backups.setOptions({ exclude: d.backup.exclude }) : backups
})

const setDependencies = sdk.setupDependencies(async () =>
  Object.fromEntries(
    Object.entries(d.dependencies)
      .filter(([, dep]) => !dep.optional)
      .map(([id, dep]) => [
        id,
        dep.running
          ? { kind: 'running' as const, versionRange: dep.version as never, healthChecks: dep.healthChecks }
          : { kind: 'exists' as const, versionRange: dep.version as never },
      ]),
  ) as never,
)

const complete = sdk.setupOnInit(effects => completeSettings(effects))

const tell = sdk.setupOnInit(async (effects, kind) => {
  if (kind === 'install') {
    for (const t of d.tasks) await sdk.action.createOwnTask(effects, built.get(t.action)!, t.severity, { reason: t.reason })
  }
  const message = kind && d.alerts[kind]
  if (message) await sdk.notification.create(effects, { level: 'info', title: d.title, message })
})

export const init = sdk.setupInit(restoreInit, versionGraph, complete, setInterfaces, setDependencies, actions, tell)
export const uninit = sdk.setupUninit(versionGraph)
