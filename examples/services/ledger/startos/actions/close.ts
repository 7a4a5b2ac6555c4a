import { sdk } from '../sdk'

export const close = sdk.Action.withoutInput(
  'close',
  { name: 'Close the books', description: 'Stop the service', warning: 'The report is no longer served.', allowedStatuses: 'only-running', group: null, visibility: 'enabled' },
  async ({ effects }) => {
    await sdk.shutdown(effects)
  },
)
