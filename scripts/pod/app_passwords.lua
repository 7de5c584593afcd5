-- A mailbox's app passwords, one for each device: Dovecot asks here before it compares with the mailbox's own password.

local PASSWORDS = '/tmp/docker-mailserver/app-passwords.txt'
local SERVICES = { imap = true, smtp = true } -- smtp: Postfix, for its submission services

function auth_password_verify(request, password)
  local service = request.protocol or request.service -- Dovecot 2.4, 2.3
  if SERVICES[service] then
    for line in io.lines(PASSWORDS) do
      local account, device, hash = line:match('^(.-)|(.-)|(.+)$')
      if account == request.user and request:password_verify(hash, password) == 1 then
        request:log_info('app password ' .. device .. ' accepted')
        return dovecot.auth.PASSDB_RESULT_OK, {}
      end
    end
  end
  return dovecot.auth.PASSDB_RESULT_NEXT, '' -- a mismatch would be logged, and count as an attack
end
