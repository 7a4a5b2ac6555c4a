import { sdk } from '../sdk'
import { putEntry } from '../settings'

const { InputSpec, Value } = sdk

const form = InputSpec.of({
  name: Value.text({
    name: 'Name',
    required: true,
    default: null,
    patterns: [{ regex: '^[a-z0-9]+(-[a-z0-9]+)*$', description: 'Lower case letters and digits, joined by single hyphens' }],
  }),
  text: Value.textarea({ name: 'Text', required: true, default: null }),
})

/** put: stores an entry. Dependents may run it themselves. */
export const put = sdk.Action.withInput(
  'put',
  { name: 'Put an entry', description: 'Keep a text under a name', warning: null, allowedStatuses: 'any', group: 'Entries', visibility: 'enabled', access: 'dependent' },
  form,
  async () => null,
  async ({ input }) => {
    await putEntry(input.name, input.text)
    return { version: '1', title: 'Kept', message: `It is called ${input.name}.`, result: { type: 'single', value: input.text, copyable: true, qr: false, masked: false } }
  },
)
