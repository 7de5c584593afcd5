-- An account that has logged in writes only addresses into the From header that it may send as: what Postfix asks of the envelope
-- (smtpd_sender_login_maps), of the same files. user-patches.sh installs this as Rspamd's rspamd.local.lua.

local CONFIG = '/tmp/docker-mailserver/'
local ADDRESS = "[^%s<>()%[%]\",;:@]+@[%w.-]+"

local function map(type, path, description)
  return rspamd_config:add_map{ type = type, url = path, description = description }
end

local owners = {
  map('hash', '/etc/postfix/virtual', 'aliases, with the accounts that own them'),
  map('hash', CONFIG .. 'postfix-send-as.cf', 'addresses that are granted, with the accounts'),
}
local exempt = map('set', CONFIG .. 'any-from.txt', 'accounts that may write any address')

local function owns(user, address)
  if address == user then
    return true
  end
  for _, owned in ipairs(owners) do
    for owner in (owned:get_key(address) or ''):lower():gmatch('[^%s,]+') do
      if owner == user then
        return true
      end
    end
  end
  return false
end

-- Every address in the header, of a name or comment too: a reader may see that one only.
local function addresses(task)
  local found = {}
  for _, header in ipairs(task:get_header_full('From') or {}) do
    local before = #found
    for address in (header.decoded or ''):gmatch(ADDRESS) do
      found[#found + 1] = address:lower()
    end
    if #found == before then
      found[#found + 1] = 'a From header without a readable address'
    end
  end
  for _, from in ipairs(task:get_from('mime') or {}) do
    found[#found + 1] = from.addr:lower()
  end
  return found
end

rspamd_config:register_symbol{
  name = 'OWN_FROM',
  type = 'prefilter',
  flags = 'empty,nostat,explicit_disable', -- the image checks nothing else of authenticated mail
  callback = function(task)
    local user = (task:get_user() or ''):lower()
    if user == '' or exempt:get_key(user) then
      return
    end
    for _, address in ipairs(addresses(task)) do
      if not owns(user, address) then
        local message = string.format('%s may not write as %s (From header)', user, address)
        task:set_pre_result{ action = 'reject', message = message, module = 'own_from' }
        return
      end
    end
  end,
}
