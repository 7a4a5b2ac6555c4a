import { description, Interface } from './description'
import { sdk } from './sdk'

function binding(i: Interface) {
  const preferred = i.externalPort === null ? {} : { preferredExternalPort: i.externalPort }
  switch (i.protocol) {
    case 'tcp':
    case 'udp':
    case 'tls':
      return { protocol: null, preferredExternalPort: i.externalPort ?? i.port, addSsl: null, secure: { ssl: i.protocol === 'tls' } }
    default:
      return { protocol: i.protocol, ...preferred }
  }
}

/** Interfaces of one port are paths of one host. */
export const setInterfaces = sdk.setupInterfaces(async ({ effects }) => {
  const receipts = []
  for (const host of new Set(description.interfaces.map(i => i.host))) {
    const list = description.interfaces.filter(i => i.host === host)
    const origin = await sdk.MultiHost.of(effects, host).bindPort(list[0].port, binding(list[0]))
    receipts.push(
      await origin.export(
        list.map(i =>
          sdk.createInterface(effects, {
            id: i.id, name: i.name, description: i.description, type: i.type, masked: i.masked,
            schemeOverride: null, username: i.username, path: i.path, query: {},
          }),
        ),
      ),
    )
  }
  return receipts
})
