import { sdk } from '../sdk'
import { settings } from '../settings'

const { InputSpec, Value, Variants } = sdk

const form = InputSpec.of({
  every: Value.number({ name: 'Every', description: 'How often the report is made', required: true, default: 2, integer: true, min: 1, max: 3600, units: 'seconds' }),
  mail: Value.union({
    name: 'Mail',
    description: 'Whether the report is sent',
    default: 'off',
    variants: Variants.of({
      off: { name: 'Nobody gets it', spec: InputSpec.of({}) },
      on: {
        name: 'Send it',
        spec: InputSpec.of({ to: Value.text({ name: 'To', required: true, default: null, patterns: [sdk.patterns.email], inputmode: 'email' }) }),
      },
    }),
  }),
})

export const configure = sdk.Action.withInput(
  'configure',
  // The text changes with what the server offers: it is read with const, and the
  // action is shown anew when that changes.
  async ({ effects }) => ({
    name: 'Settings',
    description: (await sdk.getSystemSmtp(effects).const()) ? 'The report, and who gets it' : 'The report; the server has no outgoing mail yet',
    warning: null,
    allowedStatuses: 'any',
    group: null,
    visibility: 'enabled',
  }),
  form,
  async () => {
    const now = await settings.read().once()
    return now && { every: now.every, mail: now.mailTo ? { selection: 'on' as const, value: { to: now.mailTo } } : { selection: 'off' as const, value: {} } }
  },
  async ({ effects, input }) => {
    await settings.write(effects, { every: input.every, mailTo: input.mail.selection === 'on' ? input.mail.value.to : null })
  },
)
