import { sdk } from '../sdk'
import { configure } from './configure'
import { put } from './put'
import { selfTest } from './selfTest'
import { show } from './show'

export const actions = sdk.Actions.of().addAction(configure).addAction(put).addAction(show).addAction(selfTest)
