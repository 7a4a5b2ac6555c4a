import { sdk } from './sdk'
import { actions } from './actions'
import { setInterfaces } from './interfaces'
import { renderPage } from './greeting'
import { versionGraph } from './versions'
import { restoreInit } from './backups'

const setDependencies = sdk.setupDependencies(async () => ({}))
const writePage = sdk.setupOnInit((effects) => renderPage(effects))

export const init = sdk.setupInit(restoreInit, versionGraph, writePage, setInterfaces, setDependencies, actions)
export const uninit = sdk.setupUninit(versionGraph)
