import { sdk } from '../sdk'
import { close } from './close'
import { configure } from './configure'
import { publish, table, withdraw } from './publish'
import { recordAmount } from './record'
import { selfTest } from './selfTest'

export const actions = sdk.Actions.of()
  .addAction(configure)
  .addAction(recordAmount)
  .addAction(publish)
  .addAction(withdraw)
  .addAction(table)
  .addAction(close)
  .addAction(selfTest)
