/** Calls an effect by its name on the wire: `action.create-task`. */
export async function call(effects: any, method: string, params: Record<string, unknown> = {}): Promise<unknown> {
  let at = effects
  for (const part of method.split('.')) at = at[part.replace(/-([a-z])/g, (_, c: string) => c.toUpperCase())]
  if (typeof at !== 'function') throw new Error(`the effects object has no ${method}`)
  return at(params)
}
