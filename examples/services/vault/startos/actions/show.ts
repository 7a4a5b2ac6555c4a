import { sdk } from '../sdk'
import { listEntries } from '../settings'

/** show: every entry, as a grouped result. Any service may run it. */
export const show = sdk.Action.withoutInput(
  'show',
  { name: 'Show the entries', description: 'What the vault keeps', warning: null, allowedStatuses: 'any', group: 'Entries', visibility: 'enabled', access: 'public' },
  async () => {
    const list = await listEntries()
    return {
      version: '1',
      title: 'Entries',
      message: `${list.length} are kept.`,
      result: {
        type: 'group',
        value: list.map(({ name, text }) => ({ type: 'single' as const, name, description: null, value: text, copyable: true, qr: false, masked: true })),
      },
    }
  },
)
