import { sdk } from '../sdk'
import { defaultGreeting, greetingFile, renderPage } from '../greeting'

const { InputSpec, Value } = sdk

const form = InputSpec.of({
  name: Value.text({
    name: 'Name',
    description: 'Who the page greets',
    required: true,
    default: defaultGreeting.name,
    minLength: 1,
    maxLength: 40,
  }),
  colour: Value.select({
    name: 'Colour',
    description: 'The background of the page',
    default: defaultGreeting.colour,
    values: { '#1f6f5c': 'Green', '#24507a': 'Blue', '#7a2e3b': 'Red' },
  }),
})

/** set-greeting: a form, prefilled with what holds now; the page changes at once. */
export const setGreeting = sdk.Action.withInput(
  'set-greeting',
  async () => ({
    name: 'Set greeting',
    description: 'Change whom the page greets, and its colour',
    warning: null,
    allowedStatuses: 'any',
    group: null,
    visibility: 'enabled',
  }),
  form,
  async () => await greetingFile.read().once(),
  async ({ effects, input }) => {
    await greetingFile.write(effects, input)
    await renderPage(effects)
    return {
      version: '1',
      title: 'Greeting set',
      message: 'Reload the page to see it.',
      result: { type: 'single', value: `Hello ${input.name}!`, copyable: true, qr: false, masked: false },
    }
  },
)
