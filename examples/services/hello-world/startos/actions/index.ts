import { sdk } from '../sdk'
import { setGreeting } from './setGreeting'

export const actions = sdk.Actions.of().addAction(setGreeting)
