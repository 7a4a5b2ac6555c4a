import { buildManifest } from '@start9labs/start-sdk'
import { versions } from './init'
import { source } from './sdk'

export { actions } from './actions'
export { createBackup, init, uninit } from './init'
export { main } from './main'
export const manifest = buildManifest(versions, source)
