export { actions } from './actions'
export { createBackup, init, uninit } from './init'
export { main } from './processes'
export { manifest } from './sdk'
