import { sdk } from './sdk'
import { actions } from './actions'
import { configure } from './actions/configure'
import { restoreInit } from './backups'
import { setInterfaces } from './interfaces'
import { putEntry, settings } from './settings'
import { versionGraph } from './versions'

const setDependencies = sdk.setupDependencies(async () => ({}))

/** At the first install: something to see, and a word to the owner. */
const welcome = sdk.setupOnInit(async (effects, kind, progress) => {
  if (kind !== 'install') return
  const phase = progress.addPhase('First entry', 1)
  phase.start()
  await settings.write(effects, { title: 'Vault', limit: 1000 })
  await putEntry('welcome', 'Everything that you put here stays on your own machine.\n')
  await sdk.notification.create(effects, { level: 'success', title: 'Vault is ready', message: 'Its first entry is called welcome.' })
  await sdk.action.createOwnTask(effects, configure, 'optional', { reason: 'Give your vault a title' })
  phase.complete()
})

export const init = sdk.setupInit(restoreInit, versionGraph, setInterfaces, setDependencies, actions, welcome)
export const uninit = sdk.setupUninit(versionGraph)
