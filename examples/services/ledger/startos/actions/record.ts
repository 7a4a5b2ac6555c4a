import { sdk } from '../sdk'
import { record } from '../vault'

const { InputSpec, Value } = sdk

const form = InputSpec.of({
  what: Value.text({ name: 'What for', required: true, default: null, maxLength: 40 }),
  amount: Value.number({ name: 'Amount', required: true, default: null, integer: false }),
})

export const recordAmount = sdk.Action.withInput(
  'record',
  { name: 'Record an amount', description: 'Add a line to the accounts', warning: null, allowedStatuses: 'only-running', group: null, visibility: 'enabled' },
  form,
  async () => null,
  async ({ effects, input }) => {
    // Without the vault there is nowhere to write: say what is missing.
    const check = await sdk.checkDependencies(effects)
    check.throwIfNotSatisfied()
    const text = await record(effects, input.what, input.amount)
    return { version: '1', title: 'Recorded', message: null, result: { type: 'single', value: text, copyable: true, qr: false, masked: false } }
  },
)
