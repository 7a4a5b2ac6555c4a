import { sdk } from '../sdk'
import { settings } from '../settings'

const { InputSpec, Value } = sdk

const form = InputSpec.of({
  title: Value.text({ name: 'Title', description: 'What the vault is called', required: true, default: 'Vault', minLength: 1, maxLength: 40 }),
  limit: Value.number({ name: 'Longest entry', description: 'How many bytes one entry may have', required: true, default: 1000, integer: true, min: 10, max: 100_000, units: 'bytes' }),
})

/** configure: the settings. Services may ask for it with a task; only the owner runs it. */
export const configure = sdk.Action.withInput(
  'configure',
  { name: 'Settings', description: 'The title, and how long entries may be', warning: null, allowedStatuses: 'any', group: null, visibility: 'enabled' },
  form,
  async () => await settings.read().once(),
  async ({ effects, input }) => {
    await settings.write(effects, input)
  },
)
