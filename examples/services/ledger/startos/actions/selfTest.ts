import { sdk } from '../sdk'
import { tests } from '../tests'
import { run } from '../tests/run'

/** self-test: the tests that run inside; one line of the result for each. */
export const selfTest = sdk.Action.withoutInput(
  'self-test',
  { name: 'Self-test', description: 'Try each part of the service', warning: null, allowedStatuses: 'only-running', group: null, visibility: 'enabled' },
  ({ effects }) => run(effects, tests),
)
