import { sdk } from './sdk'
import { actions } from './actions'
import { exportAddresses, table } from './actions/publish'
import { restoreInit } from './backups'
import { askForRoom, setDependencies } from './dependencies'
import { setInterfaces } from './interfaces'
import { settings } from './settings'
import { versionGraph } from './versions'
import { watchOthers } from './watch'

const defaults = sdk.setupOnInit(async (effects, kind) => {
  if (kind === 'install') await settings.write(effects, { every: 2, mailTo: null })
})

/** Where the owner manages the addresses that this service gives to others. */
const plugin = sdk.setupOnInit(async effects => {
  await sdk.plugin.url.register(effects, { tableAction: table })
})

export const init = sdk.setupInit(restoreInit, versionGraph, defaults, setInterfaces, setDependencies, actions, plugin, exportAddresses, askForRoom, watchOthers)
export const uninit = sdk.setupUninit(versionGraph)
